//! `kiki subject`: what was sealed of a client's customers, and their erasure.

use std::path::{Path, PathBuf};

use kiki::ids::{self, CustomerKey, Pseudonyms};
use kiki::leaf::{self, leaf::Body};
use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::sealed::{self, Place};
use serde_json::{Value, json};
use syncshield::subjects::file::KeyFile;
use syncshield::subjects::{self, Subject};

use crate::error::{Doing as _, Failure, rpc};
use crate::out;

/// Personal data of a client's customers.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// SyncShield's address.
    #[arg(long, global = true, env = "KIKI_SHIELD", default_value = "http://127.0.0.1:50053")]
    addr: String,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// What was sealed with a purchase, or that it was erased.
    Show {
        /// The advertiser.
        #[arg(long)]
        client: String,
        /// The purchase's id.
        #[arg(long)]
        event: String,
    },
    /// Destroys the key of a customer's personal data, for good, and says so in the log.
    Erase {
        /// The advertiser.
        #[arg(long)]
        client: String,
        /// The customer's own id, as the advertiser reports it.
        #[arg(long)]
        customer: String,
        /// Why. It stands in the log for ever: it must not say who.
        #[arg(long)]
        reason: String,
        /// The key of the customers' pseudonyms.
        #[arg(long, default_value = "kiki-data/keys/pseudonym.key")]
        pseudonym_key: PathBuf,
    },
}

/// Runs `kiki subject`.
///
/// # Errors
/// What SyncShield refused, or a key that cannot be read.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut shield = SyncShieldServiceClient::new(kiki::runtime::channel(&args.addr).doing(&args.addr)?);
    match args.command {
        Command::Show { client, event } => {
            let request = pb::UnsealRequest { client, event_id: event };
            let answer = shield.unseal(request).await.map_err(|status| rpc("asking for personal data", &status))?.into_inner();
            out::say(shown(&answer));
        }
        Command::Erase { client, customer, reason, pseudonym_key } => {
            ids::check_customer(&customer).doing("--customer")?;
            let doing = format_args!("reading {}", pseudonym_key.display()).to_string();
            let key = std::fs::read_to_string(&pseudonym_key).doing(&doing)?.parse().doing(&doing)?;
            let customer = Pseudonyms::new(&key).of(&client, &customer).0.to_vec().into();
            let request = pb::EraseSubjectRequest { client, customer, reason };
            let answer = shield.erase_subject(request).await.map_err(|status| rpc("erasing", &status))?.into_inner();
            let Some(at) = answer.position else {
                return Err(Failure::new(
                    "nothing is sealed for this customer: none of its purchases came with personal data, the id is another, or it was erased too long ago to be found",
                ));
            };
            let what = if answer.duplicate { "was erased before" } else { "erased" };
            out::say(format_args!("{what}: leaf {} says that key {} was destroyed", at.index, hex::encode(&answer.key_id)));
        }
    }
    Ok(())
}

fn shown(answer: &pb::UnsealResponse) -> String {
    let index = |at: &Option<leaf::Position>| at.as_ref().map_or_else(|| "none".to_owned(), |at| at.index.to_string());
    let personal = match std::str::from_utf8(&answer.personal) {
        Ok(text) => text.escape_debug().to_string(), // it may hold what a terminal would obey
        Err(_) => hex::encode(&answer.personal),
    };
    let mut rows = vec![("leaf", index(&answer.position))];
    rows.push(if answer.erased { ("erased, says leaf", index(&answer.erasure)) } else { ("personal", personal) });
    out::table("purchase", &rows)
}

/// Opens what is sealed in the leaves of a folder, with the keys that stand there.
pub(crate) struct Opener(KeyFile);

impl Opener {
    pub(crate) fn new(data: &Path) -> Result<Self, Failure> {
        let path = subjects::path(data);
        KeyFile::look_at(&path).map(Self).doing(format_args!("reading {}", path.display()))
    }

    /// What is sealed in a leaf: `{"text"}`, `{"hex"}` where it is no UTF-8, or `{"erased": true}`; none where nothing is.
    pub(crate) fn personal(&self, bytes: &[u8]) -> Result<Option<Value>, Failure> {
        let (head, body) = leaf::decode(bytes).doing("reading a leaf")?;
        let Body::Outcome(outcome) = body else { return Ok(None) };
        let Some(sealed) = outcome.sealed else { return Ok(None) };
        let doing = format!("leaf {}", head.index);
        let customer = CustomerKey::from_bytes(&outcome.customer).ok_or_else(|| Failure::new(format!("{doing} names no customer")))?;
        let key = self.0.find(&Subject { client: head.client.clone(), customer }).doing(&doing)?;
        let Some(key) = key.filter(|key| sealed.key_id == sealed::key_id(key)[..]) else { return Ok(Some(json!({ "erased": true }))) };
        let place = Place { log_id: &head.log_id, client: &head.client, field: sealed::PURCHASE, record: &outcome.event_id };
        let personal = sealed::open(&key, place, &sealed).doing(&doing)?;
        Ok(Some(match String::from_utf8(personal) {
            Ok(text) => json!({ "text": text }),
            Err(other) => json!({ "hex": hex::encode(other.as_bytes()) }),
        }))
    }
}
