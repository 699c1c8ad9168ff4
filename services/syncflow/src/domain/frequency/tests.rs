use super::*;

const HOUR: i64 = 3_600_000_000;

fn customer(n: u8) -> Customer {
    Customer { client: "acme".into(), key: CustomerKey([n; 16]) }
}

/// Made at the hour `at`, with a deadline two hours later.
fn shown(slot: u32, campaign: &str, at: i64) -> Shown {
    let at = UnixMicros(at * HOUR);
    Shown { slot: (1, slot), campaign: campaign.into(), at, deadline: at.plus(hours(2)) }
}

fn count(memory: &Memory, n: u8, campaign: Option<&str>, now: i64) -> u32 {
    let question = Question { customer: customer(n), campaign: campaign.map(str::to_owned), hours: 24 };
    memory.count(&question, UnixMicros(now))
}

#[test]
fn the_oldest_are_forgotten_beyond_the_bound() {
    let memory = Memory::bounded(1, 3);
    let take = |n: u8, slot, at| memory.take(&customer(n), &shown(slot, "spring", at), Fate::Open, UnixMicros(0));
    assert_eq!((take(1, 1, 5), take(1, 2, 3), take(2, 3, 4)), (0, 0, 0));
    assert_eq!(take(3, 4, 6), 1);
    assert_eq!([1, 2, 3].map(|n| count(&memory, n, None, 0)), [1, 1, 1], "the one of hour 3 is gone");
    assert_eq!(take(3, 5, 7), 1);
    assert_eq!([1, 2, 3].map(|n| count(&memory, n, None, 0)), [1, 0, 2]);
    let shard = memory.shards[0].lock();
    assert_eq!((shard.order.len(), shard.by_customer.len()), (3, 2));
}

#[test]
fn what_is_lost_or_beyond_all_windows_takes_no_memory() {
    let memory = Memory::bounded(1, 100);
    for slot in 0..100 {
        let (made, now) = (shown(slot, "spring", 0), UnixMicros(0));
        memory.take(&customer(1), &made, Fate::Open, now);
        if slot > 0 {
            memory.take(&customer(1), &made, Fate::Lost, now);
        }
    }
    assert_eq!(count(&memory, 1, None, 0), 1);
    assert_eq!(memory.shards[0].lock().order.len(), 1);
    let month = UnixMicros(720 * HOUR);
    memory.take(&customer(2), &shown(200, "spring", 720), Fate::Open, month);
    let shard = memory.shards[0].lock();
    assert_eq!((shard.order.len(), shard.by_customer.len()), (1, 1));
}
