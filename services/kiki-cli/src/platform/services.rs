//! Services as tasks: waits until each is ready, notices the first that ends, and stops them in order.

use std::future::Future;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{HEALTH_NAMES, LAST_WORD, NAMES, START};
use crate::error::{Doing as _, Failure, rpc};

type Ended = (usize, Result<(), Failure>);

pub(super) struct Services {
    running: JoinSet<Ended>,
    stops: [CancellationToken; 4],
    alive: [bool; 4],
}

impl Services {
    pub(super) fn new() -> Self {
        Self { running: JoinSet::new(), stops: std::array::from_fn(|_| CancellationToken::new()), alive: [false; 4] }
    }

    pub(super) fn spawn<F, E>(&mut self, which: usize, serve: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let service = serve(self.stops[which].clone());
        self.alive[which] = true;
        self.running.spawn(async move { (which, service.await.doing(NAMES[which])) });
    }

    /// Waits until the service says that it serves; if any service ends meanwhile, that is the error.
    pub(super) async fn ready(&mut self, which: usize, address: &str) -> Result<(), Failure> {
        let channel = kiki::runtime::channel(address).doing(address)?;
        let check = async move {
            let request = HealthCheckRequest { service: HEALTH_NAMES[which].to_owned() };
            HealthClient::new(channel).check(request).await
        };
        let answer = tokio::select! {
            biased;
            ended = self.running.join_next() => Err(self.early(ended)),
            answer = tokio::time::timeout(START, check) => match answer {
                Ok(Ok(_)) => Ok(()),
                // A service that ended while it was asked says best why.
                Ok(Err(status)) => match tokio::time::timeout(LAST_WORD, self.running.join_next()).await {
                    Ok(ended) => Err(self.early(ended)),
                    Err(_) => Err(rpc(format_args!("{} is not ready", NAMES[which]), &status)),
                },
                Err(_) => Err(Failure::new(format!("{} was not ready after {} s", NAMES[which], START.as_secs()))),
            },
        };
        if answer.is_err() {
            // What has started is stopped in order, so that its files are closed when the error is read.
            drop(self.drain().await);
        }
        answer
    }

    /// Until a shutdown is asked for or a service ends by itself; then stops what is left, in order.
    pub(super) async fn supervise(mut self, shutdown: CancellationToken) -> Result<(), Failure> {
        let first = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = self.running.join_next() => Err(self.early(ended)),
        };
        shutdown.cancel();
        let rest = self.drain().await;
        first.and(rest)
    }

    /// A service that ended although nobody asked it to.
    fn early(&mut self, ended: Option<Result<Ended, JoinError>>) -> Failure {
        match ended {
            Some(Ok((which, outcome))) => {
                self.alive[which] = false;
                outcome.err().unwrap_or_else(|| Failure::new(format!("{} stopped by itself", NAMES[which])))
            }
            Some(Err(panic)) => {
                self.stop_all();
                Failure::new(format!("a service failed: {panic}"))
            }
            None => Failure::new("no service is running"),
        }
    }

    /// After a panic, which does not say whose it was, the order is given up rather than waited for.
    fn stop_all(&self) {
        self.stops.iter().for_each(CancellationToken::cancel);
    }

    async fn drain(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        for which in 0..NAMES.len() {
            self.stops[which].cancel();
            while self.alive[which] {
                match self.running.join_next().await {
                    Some(Ok((ended, outcome))) => {
                        self.alive[ended] = false;
                        result = result.and(outcome);
                    }
                    Some(Err(panic)) => {
                        self.stop_all();
                        result = result.and(Err(panic).doing("a service"));
                    }
                    None => self.alive = [false; 4],
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{FLOW, SHIELD, VALUE};
    use super::*;

    #[tokio::test]
    async fn a_service_that_ends_by_itself_ends_the_platform() {
        let mut services = Services::new();
        services.spawn(SHIELD, |stop| async move {
            stop.cancelled().await;
            Ok::<_, Failure>(())
        });
        services.spawn(FLOW, |_| async { Err::<(), _>(Failure::new("out of luck")) });
        let shutdown = CancellationToken::new();
        let failure = services.supervise(shutdown.clone()).await.unwrap_err().to_string();
        assert_eq!(failure, "syncflow: out of luck");
        assert!(shutdown.is_cancelled());
    }

    #[tokio::test]
    async fn a_service_that_panics_does_not_leave_the_rest_running() {
        let mut services = Services::new();
        services.spawn(SHIELD, |stop| async move {
            stop.cancelled().await;
            Ok::<_, Failure>(())
        });
        services.spawn(VALUE, |_| async { if true { panic!("a fault") } else { Ok::<_, Failure>(()) } });
        assert!(services.supervise(CancellationToken::new()).await.is_err());
    }
}
