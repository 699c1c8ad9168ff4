//! What an operator asks of a running SyncShield: another key, or to let a client go to another one.

use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::sync_shield_admin_service_client::SyncShieldAdminServiceClient;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::tlog::Checkpoint;
use kiki::tlog::note::Note;

use crate::error::{Doing as _, Failure};
use crate::{invoice, out};

/// Has a log signed by a new key, which SyncShield makes and keeps.
#[derive(Debug, Clone, clap::Args)]
pub struct RotateKey {
    /// SyncShield's address.
    #[arg(long, env = "KIKI_SHIELD", default_value = "http://127.0.0.1:50053")]
    pub shield: String,
    /// The key that signs now, or a file that holds it: what is replaced is named, so that nothing is replaced twice.
    #[arg(long)]
    pub log_key: String,
    /// Who does it, for the record.
    #[arg(long)]
    pub actor: String,
    /// Why, for the record.
    #[arg(long)]
    pub reason: String,
}

/// Runs `kiki audit rotate-key`.
///
/// # Errors
/// What SyncShield refused.
pub async fn rotate_key(args: &RotateKey) -> Result<(), Failure> {
    let old_key = invoice::key(Some(&args.log_key), &[])?.to_string();
    let mut shield = SyncShieldAdminServiceClient::new(kiki::runtime::channel(&args.shield).doing(&args.shield)?);
    let request = pb::RotateKeyRequest { old_key, actor: args.actor.clone(), reason: args.reason.clone() };
    let rotated = shield.rotate_key(request).await.doing("changing the key")?.into_inner();
    let index = rotated.position.map_or(0, |position| position.index);
    out::say(format_args!(
        "{}leaf {index}: signed from now on by\n{}",
        if rotated.duplicate { "done before, " } else { "" },
        rotated.new_key
    ));
    Ok(())
}

/// Has a client go from one SyncShield to another; where it broke off, the same command goes on.
#[derive(Debug, Clone, clap::Args)]
pub struct MoveClient {
    /// The SyncShield that it leaves.
    #[arg(long)]
    pub from: String,
    /// The SyncShield that it goes to, which was told the key of the other's log (`--peer-log`).
    #[arg(long)]
    pub to: String,
    /// The client.
    #[arg(long)]
    pub client: String,
}

/// Runs `kiki audit move-client`.
///
/// # Errors
/// What one of them refused. A client that left and was not taken in is in neither until the command is run again.
pub async fn move_client(args: &MoveClient) -> Result<(), Failure> {
    let (from, to) = (kiki::runtime::channel(&args.from).doing(&args.from)?, kiki::runtime::channel(&args.to).doing(&args.to)?);
    let newest = SyncShieldServiceClient::new(to.clone()).get_checkpoint(pb::GetCheckpointRequest::default()).await;
    let note = Note::parse(newest.doing(&args.to)?.into_inner().checkpoint.as_bytes()).doing(&args.to)?;
    let to_log_id = note.text.parse::<Checkpoint>().doing(&args.to)?.origin;
    let request = pb::ExportClientRequest { client: args.client.clone(), to_log_id: to_log_id.clone() };
    let mut parts = SyncShieldAdminServiceClient::new(from).export_client(request).await.doing("letting the client go")?.into_inner();
    let mut carried = Vec::new(); // at most 64 MiB
    while let Some(part) = parts.message().await.doing("letting the client go")? {
        carried.push(pb::ImportClientRequest { proof: part.proof, log_key: part.log_key, state: part.state });
    }
    let mut to = SyncShieldAdminServiceClient::new(to);
    let taken = to.import_client(tokio_stream::iter(carried)).await.doing("taking the client in")?.into_inner();
    let index = taken.position.map_or(0, |position| position.index);
    let before = if taken.duplicate { "done before, " } else { "" };
    out::say(format_args!("{before}{} is in {to_log_id} since leaf {index}, at client_seq {}", args.client, taken.client_seq));
    Ok(())
}
