//! `kiki models`: which models of a running SyncValue answer, a change of that, and why a prediction is what it is.

use std::collections::HashMap;

use kiki::clock::UnixMicros;
use kiki::pb::syncvalue::v1 as pb;
use kiki::pb::syncvalue::v1::predict_request::Subject;
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::runtime::Channel;

use crate::error::{Doing as _, Failure, rpc};
use crate::out;

/// Models of lifetime value.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// SyncValue's address.
    #[arg(long, global = true, env = "KIKI_VALUE", default_value = "http://127.0.0.1:50051")]
    addr: String,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Who answers, and since which version.
    Show,
    /// Has a model answer, and another for a share of the customers. Folders are read anew, also where their names stay.
    Serve(Serve),
    /// Takes the last change back.
    Rollback(Scope),
    /// What the prediction for a customer is made of.
    Explain {
        /// The advertiser.
        #[arg(long)]
        client: String,
        /// The customer, by its own id.
        #[arg(long)]
        customer: String,
        /// ISO 4217.
        #[arg(long)]
        currency: String,
        /// How far is predicted, days; the service's own where it is not given.
        #[arg(long, default_value_t = 0)]
        horizon_days: u32,
    },
}

/// For whom; for all that have no plan of their own where neither is given.
#[derive(Debug, Clone, clap::Args)]
struct Scope {
    /// The advertiser.
    #[arg(long, default_value = "")]
    client: String,
    /// ISO 4217.
    #[arg(long, default_value = "")]
    currency: String,
}

#[derive(Debug, Clone, clap::Args)]
struct Serve {
    /// Name of a folder below SyncValue's folder of models; "none": the estimate answers.
    model: String,
    #[command(flatten)]
    scope: Scope,
    /// Another model, by its folder.
    #[arg(long, default_value = "")]
    candidate: String,
    /// Its share of the customers, such as 10%.
    #[arg(long, default_value = "0%", value_parser = ppm)]
    share: u32,
    /// Its share of a campaign's customers, as `spring=10%`. May be repeated.
    #[arg(long = "campaign", value_parser = campaign)]
    campaigns: Vec<(String, u32)>,
    /// Share of the predictions that the other model makes as well, to be compared.
    #[arg(long, default_value = "0%", value_parser = ppm)]
    shadow: u32,
}

/// A share such as 12.5%, in parts per million.
fn ppm(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a share of 0% to 100%, such as 12.5%");
    let percent = text.strip_suffix('%').ok_or_else(wrong)?;
    let ppm = kiki::money::parse_decimal(percent, 4).map_err(|_| wrong())?;
    u32::try_from(ppm).ok().filter(|ppm| *ppm <= 1_000_000).ok_or_else(wrong)
}

fn campaign(text: &str) -> Result<(String, u32), String> {
    let (name, share) = text.split_once('=').ok_or_else(|| format!("{text:?} is not campaign=share"))?;
    Ok((name.to_owned(), ppm(share)?))
}

type Client = SyncValueServiceClient<Channel>;

/// Runs `kiki models`.
///
/// # Errors
/// What SyncValue refused.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut client = Client::new(kiki::runtime::channel(&args.addr).doing(&args.addr)?);
    match args.command {
        Command::Show => show(&mut client).await,
        Command::Serve(serve) => set(&mut client, serve).await,
        Command::Rollback(Scope { client: of, currency }) => {
            let plan = Some(pb::ModelPlan { client: of, currency, ..Default::default() });
            let request = pb::SetModelsRequest { plan, rollback: true };
            tell(client.set_models(request).await.map_err(|s| rpc("taking the change back", &s))?.into_inner());
            Ok(())
        }
        Command::Explain { client: of, customer, currency, horizon_days } => {
            let subject = Some(Subject::Customer(customer));
            explain(&mut client, pb::PredictRequest { client: of, subject, currency, horizon_days, ..Default::default() }).await
        }
    }
}

async fn get(client: &mut Client) -> Result<pb::GetModelResponse, Failure> {
    Ok(client.get_model(pb::GetModelRequest::default()).await.map_err(|s| rpc("asking for the models", &s))?.into_inner())
}

async fn show(client: &mut Client) -> Result<(), Failure> {
    let info = get(client).await?;
    if info.plans.is_empty() {
        out::say(format_args!("{} answers for all: no model was set", info.model));
    }
    for plan in info.plans {
        tell(pb::SetModelsResponse { plan: Some(plan), models: info.models.clone() });
    }
    Ok(())
}

async fn set(client: &mut Client, serve: Serve) -> Result<(), Failure> {
    let Serve { model, scope, candidate, share, campaigns, shadow } = serve;
    let last = get(client).await?.plans.into_iter().find(|plan| plan.client == scope.client && plan.currency == scope.currency);
    let plan = pb::ModelPlan {
        client: scope.client,
        currency: scope.currency,
        version: last.map_or(0, |plan| plan.version),
        serving: if model == "none" { String::new() } else { model },
        candidate,
        candidate_share_ppm: share,
        campaign_share_ppm: campaigns.into_iter().collect(),
        shadow_ppm: shadow,
    };
    let request = pb::SetModelsRequest { plan: Some(plan), rollback: false };
    tell(client.set_models(request).await.map_err(|s| rpc("setting the models", &s))?.into_inner());
    Ok(())
}

/// One plan, in lines.
fn tell(set: pb::SetModelsResponse) {
    let plan = set.plan.unwrap_or_default();
    let models: HashMap<&str, &pb::ModelInfo> = set.models.iter().map(|model| (model.folder.as_str(), model)).collect();
    let named = |folder: &str| match models.get(folder) {
        _ if folder.is_empty() => "none".to_owned(),
        None => format!("{folder} (not loaded: the estimate answers)"),
        Some(pb::ModelInfo { id, horizon_days, currency, .. }) => {
            let only = if currency.is_empty() { String::new() } else { format!(", {currency} only") };
            format!("{folder} ({id}, {horizon_days} days{only})")
        }
    };
    let percent = |ppm: u32| format!("{} %", f64::from(ppm) / 10_000.0);
    let all = |name: &str, what: &str| if name.is_empty() { format!("all {what}") } else { name.to_owned() };
    let mut rows = vec![("serving", named(&plan.serving)), ("candidate", named(&plan.candidate))];
    if !plan.candidate.is_empty() {
        rows.push(("its share", percent(plan.candidate_share_ppm)));
        let mut campaigns: Vec<_> = plan.campaign_share_ppm.iter().collect();
        campaigns.sort_unstable();
        rows.extend(campaigns.into_iter().map(|(campaign, share)| ("of campaign", format!("{campaign}: {}", percent(*share)))));
        rows.push(("shadow", percent(plan.shadow_ppm)));
    }
    let heading = format!("{}, {}: version {}", all(&plan.client, "clients"), all(&plan.currency, "currencies"), plan.version);
    out::say(out::table(&heading, &rows));
}

async fn explain(client: &mut Client, request: pb::PredictRequest) -> Result<(), Failure> {
    let currency = request.currency.clone();
    let answer = client.explain(pb::ExplainRequest { request: Some(request) }).await.map_err(|s| rpc("asking why", &s))?.into_inner();
    let prediction = answer.prediction.unwrap_or_default();
    let amount = |micros: i64| out::amount(i128::from(micros) * 1_000, &currency);
    let why = match prediction.fallback_reason() {
        pb::FallbackReason::Unspecified => prediction.model.clone(),
        reason => format!("{}: {}", prediction.model, reason.as_str_name().trim_start_matches("FALLBACK_REASON_").to_lowercase()),
    };
    let mut rows = vec![
        ("expected".to_owned(), format!("{} in {} days", amount(prediction.mean_micros), prediction.horizon_days)),
        ("median".to_owned(), amount(prediction.median_micros)),
        ("5 % to 95 %".to_owned(), format!("{} to {}", amount(prediction.q05_micros), amount(prediction.q95_micros))),
        ("buys again".to_owned(), format!("{:.1} %", f64::from(prediction.p_active_ppb) / 1e7)),
        ("by".to_owned(), why),
    ];
    rows.extend(answer.factors.iter().map(|factor| match factor.input {
        0.0 => (factor.name.clone(), format!("x {:.3}", factor.factor)),
        input => (factor.name.clone(), format!("x {:.3}  read as {input:.3}", factor.factor)),
    }));
    rows.extend(answer.days.iter().map(|day| {
        let date = UnixMicros::from_pb(day.day.as_ref()).and_then(|at| jiff::Timestamp::from_microsecond(at.0).ok());
        let date = date.map_or("a day".to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
        (date, format!("{} bought; without it {}", amount(day.value_micros), amount(day.mean_without_micros)))
    }));
    let rows: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    out::say(out::table("prediction", &rows));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent() {
        assert_eq!(["0%", "12.5%", "100%", "0.0001%"].map(ppm), [Ok(0), Ok(125_000), Ok(1_000_000), Ok(1)]);
        assert!(["10", "101%", "-1%", "x%", "1.00001%"].map(ppm).iter().all(Result::is_err));
        assert_eq!(campaign("spring=10%"), Ok(("spring".to_owned(), 100_000)));
        assert!(campaign("spring").is_err());
    }
}
