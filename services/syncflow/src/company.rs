//! What comes one by one and is taken together: the first waits a little for others, and one call is for all of them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Those that wait: as many at the most as there are requests under way.
#[derive(Debug)]
pub struct Company<T, R> {
    wait: Duration,
    waiting: Mutex<Vec<(T, oneshot::Sender<R>)>>,
}

impl<T: Send + 'static, R: Send + 'static> Company<T, R> {
    /// The first waits so long.
    #[must_use]
    pub fn new(wait: Duration) -> Arc<Self> {
        Arc::new(Self { wait, waiting: Mutex::default() })
    }

    /// Waits with whoever else is there, for the first one's `take`, which answers all in their order. Nothing where the runtime ends
    /// before that. Whoever goes away meanwhile is taken all the same.
    pub async fn join<F: Future<Output = Vec<R>> + Send>(
        self: &Arc<Self>,
        one: T,
        take: impl FnOnce(Vec<T>) -> F + Send + 'static,
    ) -> Option<R> {
        let (tell, told) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock();
            waiting.push((one, tell));
            waiting.len() == 1
        };
        if is_first {
            let company = self.clone();
            // A task of its own, because the first may be the one that goes away.
            tokio::spawn(async move {
                if !company.wait.is_zero() {
                    tokio::time::sleep(company.wait).await;
                }
                let (all, tell): (Vec<_>, Vec<_>) = std::mem::take(&mut *company.waiting.lock()).into_iter().unzip();
                tell.into_iter().zip(take(all).await).for_each(|(tell, result)| drop(tell.send(result)));
            });
        }
        told.await.ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    type Calls = Arc<Mutex<Vec<Vec<u32>>>>;

    fn doubled(calls: &Calls) -> impl FnOnce(Vec<u32>) -> std::future::Ready<Vec<u32>> + Send + 'static {
        let calls = calls.clone();
        move |all| {
            calls.lock().push(all.clone());
            std::future::ready(all.iter().map(|one| one * 2).collect())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_come_within_the_wait_are_one_call_and_each_has_its_own_answer() {
        let (company, calls) = (Company::new(Duration::from_millis(2)), Calls::default());
        let first = tokio::join!(company.join(1, doubled(&calls)), company.join(2, doubled(&calls)), company.join(3, doubled(&calls)));
        assert_eq!(first, (Some(2), Some(4), Some(6)));
        assert_eq!(company.join(4, doubled(&calls)).await, Some(8));
        assert_eq!(*calls.lock(), [vec![1, 2, 3], vec![4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_may_go_away() {
        let (company, calls) = (Company::new(Duration::from_millis(2)), Calls::default());
        let first = tokio::time::timeout(Duration::from_millis(1), company.join(1, doubled(&calls))).await;
        assert!(first.is_err());
        assert_eq!(company.join(2, doubled(&calls)).await, Some(4));
        assert_eq!(*calls.lock(), [vec![1, 2]]);
    }

    #[tokio::test]
    async fn without_a_wait_whoever_is_there_is_taken_at_once() {
        let (company, calls) = (Company::new(Duration::ZERO), Calls::default());
        for one in 1..=2 {
            assert_eq!(company.join(one, doubled(&calls)).await, Some(one * 2));
        }
        assert_eq!(*calls.lock(), [vec![1], vec![2]]);
    }
}
