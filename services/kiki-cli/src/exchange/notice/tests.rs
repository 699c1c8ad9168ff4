use super::*;

const NONE: Faults = Faults { late: 0.0, late_by: 5.0, duplicate: 0.0, lost: 0.0, reordered: 0.0, wrong_price: 0.0, unshown: 0.0 };
const BIDS: u64 = 4_000;

fn courses(faults: Faults, charge: Charge, fate: Fate) -> Vec<Course> {
    (0..BIDS).map(|number| Course::of(&faults, charge, fate, &mut Draws::of(1, "test", &[number]))).collect()
}

fn kinds(course: &Course) -> Vec<Kind> {
    let mut notices: Vec<&Notice> = course.notices.iter().collect();
    notices.sort_by_key(|notice| notice.after);
    notices.iter().map(|notice| notice.kind).collect()
}

#[test]
fn without_faults_a_win_is_told_and_then_charged_once_as_it_was_cleared() {
    for course in courses(NONE, Charge::Bill, Fate::Won(500)) {
        assert_eq!(kinds(&course), [Kind::Win, Kind::Bill]);
        assert!(course.notices.iter().all(|notice| notice.price == 500 && notice.first == (notice.kind == Kind::Bill)));
        assert_eq!((course.charged, course.drawn), (Some(Charged { cleared: 500, told: 500, lost: false }), Drawn::default()));
    }
    for course in courses(NONE, Charge::Win, Fate::Won(500)) {
        assert_eq!((kinds(&course), course.notices[0].first), (vec![Kind::Win], true));
    }
    for course in courses(NONE, Charge::Bill, Fate::Lost(BEATEN)) {
        assert_eq!((kinds(&course), course.notices[0].reason, course.charged), (vec![Kind::Loss], BEATEN, None));
    }
}

#[test]
fn each_fault_happens_as_often_as_its_rate_says_and_does_what_it_says() {
    let of = |faults: Faults, drawn: fn(&Drawn) -> u64| {
        let courses = courses(faults, Charge::Bill, Fate::Won(500));
        let count: u64 = courses.iter().map(|course| drawn(&course.drawn)).sum();
        (courses, count as f64 / BIDS as f64)
    };
    let (late, share) = of(Faults { late: 0.1, ..NONE }, |d| d.late);
    assert!((0.17..0.23).contains(&share), "two notices a bid, a tenth of them late: {share}");
    let furthest = late.iter().flat_map(|c| &c.notices).map(|n| n.after).max();
    assert!(furthest.is_some_and(|after| after > Duration::from_secs(4) && after < Duration::from_secs(12)));

    let (twice, share) = of(Faults { duplicate: 0.1, ..NONE }, |d| d.duplicate);
    assert!((0.17..0.23).contains(&share), "{share}");
    assert!(twice.iter().all(|c| c.notices.iter().filter(|n| n.first).count() == 1), "a repetition is no first copy");

    let (lost, share) = of(Faults { lost: 0.1, ..NONE }, |d| d.lost);
    assert!((0.17..0.23).contains(&share), "{share}");
    for course in &lost {
        let told = course.notices.iter().any(|notice| notice.first);
        assert_eq!(course.charged.map(|charged| charged.lost), Some(!told), "it is charged all the same");
    }

    let (swapped, share) = of(Faults { reordered: 0.1, ..NONE }, |d| d.reordered);
    assert!((0.08..0.12).contains(&share), "{share}");
    assert!(swapped.iter().all(|c| (kinds(c)[0] == Kind::Bill) == (c.drawn.reordered == 1)));

    let (unshown, share) = of(Faults { unshown: 0.1, ..NONE }, |d| d.unshown);
    assert!((0.08..0.12).contains(&share), "{share}");
    assert!(unshown.iter().all(|c| c.charged.is_none() == (kinds(c) == [Kind::Win, Kind::Loss])));
}

#[test]
fn a_wrong_price_is_told_and_the_right_one_is_in_the_books() {
    let courses = courses(Faults { wrong_price: 0.1, ..NONE }, Charge::Bill, Fate::Won(500));
    let wrong: Vec<Charged> =
        courses.iter().filter_map(|course| course.charged).filter(|charged| charged.told != charged.cleared).collect();
    assert!((320..480).contains(&wrong.len()), "{}", wrong.len());
    assert!(wrong.iter().all(|charged| charged.cleared == 500 && (250..=750).contains(&charged.told)));
    let one = Course::of(&Faults { wrong_price: 1.0, ..NONE }, Charge::Bill, Fate::Won(0), &mut Draws::of(1, "test", &[]));
    assert_eq!(one.charged, Some(Charged { cleared: 0, told: 1, lost: false }));
}

#[test]
fn a_seed_gives_the_same_course_again() {
    let faults = Faults { late: 0.3, duplicate: 0.3, lost: 0.3, reordered: 0.3, wrong_price: 0.3, unshown: 0.3, ..NONE };
    let fates = [Fate::Won(500), Fate::Lost(BEATEN)];
    for fate in fates {
        assert_eq!(courses(faults, Charge::Bill, fate), courses(faults, Charge::Bill, fate));
    }
    let other = Course::of(&faults, Charge::Bill, fates[0], &mut Draws::of(2, "test", &[0]));
    assert_ne!(courses(faults, Charge::Bill, fates[0])[0], other);
}

#[test]
fn macros_are_replaced_and_unknown_ones_by_nothing() {
    let macros =
        Macros { auction: "a/1", imp: "2", seat: "s t", bid: "b", ad: "", currency: "USD", offered: 2_000_000, min_to_win: 1_500_000 };
    let bill = notice(Kind::Bill, Duration::ZERO, 1_234_567, 0);
    let url =
        "http://h/?i=${AUCTION_ID}&s=${AUCTION_SEAT_ID}&p=${AUCTION_PRICE}&m=${AUCTION_MIN_TO_WIN}&r=${AUCTION_MBR}&u=${UNKNOWN}&x=${";
    assert_eq!(macros.fill(url, &bill), "http://h/?i=a%2F1&s=s%20t&p=1.234567&m=1.500000&r=0.6173&u=&x=${");
    let loss = notice(Kind::Loss, Duration::ZERO, 0, BEATEN);
    assert_eq!(macros.fill("http://h/${AUCTION_LOSS}?p=${AUCTION_PRICE}", &loss), "http://h/102?p=");
}
