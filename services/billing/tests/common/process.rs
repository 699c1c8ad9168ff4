//! Billing as a process of its own, which can be killed.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use billing::domain::invoice::Invoice;
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::*;
use tonic::transport::{Channel, Endpoint};

use super::place::Place;

/// The process; killed when it goes out of scope.
pub(crate) struct Process {
    pub(crate) child: Arc<Mutex<Child>>,
    pub(crate) client: BillingServiceClient<Channel>,
    http: String,
}

impl Process {
    /// Starts it over a ledger and waits until it answers.
    pub(crate) async fn start(place: &Place, shield: &str, log_key: &str) -> Self {
        // A port that was free may be another's by the time that it is asked for.
        for _ in 0..4 {
            if let Some(process) = Self::try_start(place, shield, log_key).await {
                return process;
            }
        }
        panic!("the process ends at its start");
    }

    /// None where it ended at once.
    async fn try_start(place: &Place, shield: &str, log_key: &str) -> Option<Self> {
        let [grpc, http] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_billing"));
        command.args(["--grpc", &grpc, "--http", &http, "--store", &place.store, "--shield", shield, "--log-key", log_key]);
        let child = command.env("RUST_LOG", "off").stderr(Stdio::null()).spawn().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{grpc}")).unwrap();
        let mut process = Self { child: Arc::new(Mutex::new(child)), client: BillingServiceClient::new(endpoint.connect_lazy()), http };
        for _ in 0..4_000 {
            // A connection alone may be to itself: nobody listens yet, and its own port is the one that it asks for.
            if process.client.list_invoices(ListInvoicesRequest::default()).await.is_ok() {
                return Some(process);
            }
            if process.child.lock().unwrap().try_wait().unwrap().is_some() {
                return None;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // until it listens
        }
        panic!("{grpc} does not answer");
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        kill(&self.child);
    }

    pub(crate) async fn draft(&mut self) -> Result<Vec<InvoiceSummary>, tonic::Status> {
        let request = DraftInvoicesRequest { month: "2026-01".into(), ..Default::default() };
        Ok(self.client.draft_invoices(request).await?.into_inner().invoices)
    }

    pub(crate) async fn finalize(&mut self, id: &str) -> Result<InvoiceSummary, tonic::Status> {
        let request = FinalizeInvoiceRequest { invoice_id: id.into() };
        Ok(self.client.finalize_invoice(request).await?.into_inner().invoice.unwrap())
    }

    pub(crate) async fn document(&mut self, id: &str) -> Result<Vec<u8>, tonic::Status> {
        let answer = self.client.get_invoice(GetInvoiceRequest { invoice_id: id.into() }).await?.into_inner();
        assert_eq!(Invoice::from_json(&answer.json).unwrap().to_json(), answer.json);
        Ok(answer.json.to_vec())
    }

    pub(crate) async fn bundle(&mut self, id: &str) -> Result<Vec<u8>, tonic::Status> {
        let mut stream =
            self.client.get_proof_bundle(GetProofBundleRequest { invoice_id: id.into(), ..Default::default() }).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            bytes.extend_from_slice(&message.chunk);
        }
        Ok(bytes)
    }

    pub(crate) async fn pay(&mut self, key: &str, id: &str, amount_minor: i64) -> Result<InvoiceSummary, tonic::Status> {
        let (key, invoice_id, actor, currency) = (key.into(), id.into(), "ada".into(), "USD".into());
        let (received_on, reference) = ("2026-02-18".into(), String::new());
        let request = RecordPaymentRequest { key, invoice_id, actor, amount_minor, currency, received_on, reference };
        Ok(self.client.record_payment(request).await?.into_inner().invoice.unwrap())
    }

    pub(crate) async fn credit(&mut self, id: &str, amount_minor: i64) -> Result<InvoiceSummary, tonic::Status> {
        let (key, invoice_id, actor, currency) = ("credit".into(), id.into(), "ada".into(), "USD".into());
        let credit = CreditInvoiceRequest { key, invoice_id, actor, amount_minor, currency, ..Default::default() };
        let request = CreditInvoiceRequest { reason: "as agreed".into(), ..credit };
        Ok(self.client.credit_invoice(request).await?.into_inner().credit_note.unwrap())
    }

    /// What a metric without labels is at.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(&self.http).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends it as a crash would, also twice.
pub(crate) fn kill(child: &Mutex<Child>) {
    let mut child = child.lock().unwrap();
    child.kill().ok();
    child.wait().ok();
}
