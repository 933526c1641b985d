//! Patience with the other end of a connection: one timer, whatever is waited for.
//!
//! PROMISES
//!   No wait is longer than was said. Most waits end long before their time, and arming a timer for each takes the
//!   runtime's timer queue, which all threads share: ours stays armed for an earlier wait's deadline and is only put on when it goes
//!   off, which costs one needless wake for each such time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one connection.
#[derive(Debug, Default)]
pub struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// What the future gives; `None` where that takes longer.
    pub async fn within<F: Future>(&mut self, patience: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut deadline = None;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience.min(LONGEST));
            let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            while sleep.as_mut().poll(cx).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(None);
                }
                sleep.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

/// A year is as good as for ever, and can be added to any moment.
const LONGEST: Duration = Duration::from_secs(365 * 86400);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::{sleep, timeout};

    const UNIT: Duration = Duration::from_millis(50);

    /// How long a wait took that was in vain, in units.
    async fn in_vain(patience: &mut Patience, units: u32) -> u128 {
        let before = Instant::now();
        let ended = timeout(100 * UNIT, patience.within(units * UNIT, pending::<()>())).await;
        assert_eq!(ended, Ok(None));
        before.elapsed().as_millis() / UNIT.as_millis()
    }

    #[tokio::test]
    async fn a_wait_ends_when_it_was_to_whatever_was_waited_for_before() {
        let mut patience = Patience::default();
        assert_eq!(patience.within(Duration::MAX, ready(1)).await, Some(1));
        assert_eq!(patience.within(Duration::MAX, sleep(UNIT)).await, Some(()), "armed for a year");
        assert!((1..4).contains(&in_vain(&mut patience, 1).await), "earlier than what it was armed for");
        assert_eq!(patience.within(2 * UNIT, sleep(UNIT)).await, Some(()), "armed for another unit");
        assert!((6..9).contains(&in_vain(&mut patience, 6).await), "later than what it was armed for");
        assert!((2..5).contains(&in_vain(&mut patience, 2).await), "after it went off");
    }

    /// A pooled connection goes from task to task.
    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let mut patience = Patience::default();
        for _ in 0..2 {
            let waiting = async move {
                in_vain(&mut patience, 1).await;
                let _ = patience.within(4 * UNIT, sleep(UNIT)).await;
                patience
            };
            patience = timeout(200 * UNIT, tokio::spawn(waiting)).await.unwrap().unwrap();
        }
    }
}
