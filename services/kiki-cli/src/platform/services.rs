//! Services as tasks: waits until each is ready, notices the first that ends, and stops them in order.
//!
//! Billing follows the log in its own time: once a second it believes and folds what a new checkpoint covers, which takes
//! milliseconds, and a bid has few. So it has a thread of its own, which gives way to the others where there are too few cores.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{BILLING, HEALTH_NAMES, LAST_WORD, NAMES, START};
use crate::error::{Doing as _, Failure, rpc};

type Ended = (usize, Result<(), Failure>);

pub(super) struct Services {
    running: JoinSet<Ended>,
    stops: [CancellationToken; 4],
    alive: [bool; 4],
    aside: Aside,
}

/// How much the thread of [`Aside`] gives way: a tenth of the weight of another (sched(7)).
const GIVES_WAY: i32 = 10;

/// A runtime with one thread. Once this is dropped its service has ended, or is given up: nobody waits for what is left on it.
struct Aside(Option<Runtime>);

impl Aside {
    fn new() -> std::io::Result<Self> {
        let give_way = || {
            let _ = rustix::process::nice(GIVES_WAY); // where that is not allowed it does not
        };
        let mut threads = Builder::new_multi_thread();
        threads.worker_threads(1).enable_all().thread_name("aside").on_thread_start(give_way).build().map(Some).map(Self)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Services {
    /// None yet.
    ///
    /// # Errors
    /// A thread did not start.
    pub(super) fn new() -> Result<Self, Failure> {
        let stops = std::array::from_fn(|_| CancellationToken::new());
        Ok(Self { running: JoinSet::new(), stops, alive: [false; 4], aside: Aside::new().doing("starting a thread")? })
    }

    pub(super) fn spawn<F, E>(&mut self, which: usize, serve: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let service = serve(self.stops[which].clone());
        self.alive[which] = true;
        let service = async move { (which, service.await.doing(NAMES[which])) };
        match &self.aside.0 {
            Some(aside) if which == BILLING => self.running.spawn_on(service, aside.handle()),
            _ => self.running.spawn(service),
        };
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

    use super::super::{BILLING, FLOW, SHIELD, VALUE};
    use super::*;

    #[tokio::test]
    async fn a_service_that_ends_by_itself_ends_the_platform() {
        let mut services = Services::new().unwrap();
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
        let mut services = Services::new().unwrap();
        services.spawn(SHIELD, |stop| async move {
            stop.cancelled().await;
            Ok::<_, Failure>(())
        });
        services.spawn(VALUE, |_| async { if true { panic!("a fault") } else { Ok::<_, Failure>(()) } });
        assert!(services.supervise(CancellationToken::new()).await.is_err());
    }

    #[tokio::test]
    async fn billing_holds_up_no_other_service() {
        let mut services = Services::new().unwrap();
        let (go, held) = std::sync::mpsc::channel::<()>();
        services.spawn(BILLING, |_| async move {
            let _ = held.recv(); // as a long fold would, without a word to its runtime
            Ok::<_, Failure>(())
        });
        services.spawn(FLOW, |_| async move {
            drop(go);
            Ok::<_, Failure>(())
        });
        assert!(services.supervise(CancellationToken::new()).await.is_err(), "one of them ended by itself");
    }
}
