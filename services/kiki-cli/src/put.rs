//! `kiki put`: a client's terms and campaigns as documents say, YAML or JSON with the field names of `kiki.log.v1`; and
//! its [purchases].

use std::path::{Path, PathBuf};

use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::error::{Doing as _, Failure, rpc};
use crate::{out, purchases};

/// Bytes of a document: what it is read to has to fit a leaf of 64 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// What is put, and where.
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
    /// What the client pays for, and how it is counted; nothing is bid before.
    Terms(Document),
    /// A campaign, or its next version.
    Campaign(Document),
    /// Purchases and refunds, by SyncFlow: CSV with the columns event_id, customer, currency, value, occurred_at, receipt, personal.
    Purchases {
        /// The purchases.
        #[command(flatten)]
        of: Document,
        /// SyncFlow's address.
        #[arg(long, env = "KIKI_FLOW", default_value = "http://127.0.0.1:50052")]
        flow: String,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Document {
    /// The advertiser.
    #[arg(long)]
    client: String,
    /// The document: YAML or JSON; CSV of purchases.
    file: PathBuf,
}

/// Runs `kiki put`.
///
/// # Errors
/// A document that cannot be read as what it is to be, or what SyncShield refused.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut shield = SyncShieldServiceClient::new(kiki::runtime::channel(&args.addr).doing(&args.addr)?);
    let (what, version, position) = match args.command {
        Command::Terms(Document { client, file }) => {
            let what = format!("terms of {client}");
            let request = pb::PutTermsRequest { client, terms: Some(load::<leaf::Terms>(&file, "kiki.log.v1.Terms")?) };
            let put = shield.put_terms(request).await.map_err(|status| rpc("putting the terms", &status))?.into_inner();
            (what, put.version, put.position)
        }
        Command::Campaign(Document { client, file }) => {
            let campaign = load::<leaf::Campaign>(&file, "kiki.log.v1.Campaign")?;
            let what = format!("campaign {client}/{}", campaign.campaign);
            let request = pb::PutCampaignRequest { client, campaign: Some(campaign) };
            let put = shield.put_campaign(request).await.map_err(|status| rpc("putting the campaign", &status))?.into_inner();
            (what, put.version, put.position)
        }
        Command::Purchases { of, flow } => return purchases::put(&flow, &of.client, &of.file).await,
    };
    out::say(format_args!("{what}: version {version}, leaf {}", position.map_or(0, |position| position.index)));
    Ok(())
}

fn load<M: prost::Message + Default>(path: &Path, name: &str) -> Result<M, Failure> {
    let doing = || path.display().to_string();
    let length = std::fs::metadata(path).doing(doing())?.len();
    if length > MAX_BYTES {
        return Err(Failure::new(format!("{}: {length} bytes; at most {MAX_BYTES} are taken", path.display())));
    }
    read(&std::fs::read(path).doing(doing())?, name).doing(doing())
}

/// Protobuf's own JSON mapping, so that a field that is added to the message can be written here.
fn read<M: prost::Message + Default>(bytes: &[u8], name: &str) -> Result<M, Failure> {
    let value: serde_json::Value = serde_yaml_ng::from_slice(bytes).doing("reading the document")?;
    let pool = DescriptorPool::decode(kiki::pb::DESCRIPTORS).doing("reading the descriptors")?;
    let message = pool.get_message_by_name(name).ok_or_else(|| Failure::new(format!("there is no {name}")))?;
    DynamicMessage::deserialize(message, value).doing(format_args!("reading it as {name}"))?.transcode_to().doing("reading it")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_examples_are_read_and_a_misspelt_field_is_named() {
        let campaign: leaf::Campaign = read(include_bytes!("../../../docs/clients/campaign.yaml"), "kiki.log.v1.Campaign").unwrap();
        assert_eq!((campaign.campaign.as_str(), campaign.target_roas_ppm), ("spring", 3_000_000));
        assert_eq!(campaign.creatives[0].format(), leaf::CreativeFormat::Banner);
        let terms: leaf::Terms = read(include_bytes!("../../../docs/clients/terms.yaml"), "kiki.log.v1.Terms").unwrap();
        assert_eq!((terms.share_ppm, terms.basis()), (100_000, leaf::Basis::Predicted));
        let error = read::<leaf::Campaign>(b"{campaign: c, limit_totl_micros: 1}", "kiki.log.v1.Campaign").unwrap_err().to_string();
        assert!(error.contains("limit_totl_micros"), "{error}");
    }
}
