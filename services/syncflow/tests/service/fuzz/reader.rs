//! The reader of bid requests against serde_json's tree and prost's messages: what they make of the same bytes, written out plainly,
//! is read alike; and what they refuse is refused, but for what the reader's documentation names.

use kiki::pb::openrtb::v2 as pb;
use prost::Message as _;
use serde_json::{Value, json};
use syncflow::domain::openrtb::{BidRequest, Document, MAX_ID_BYTES, MAX_IMPS, Malformed};
use syncflow::domain::opportunity::Opportunity;

use super::fuzzing;

/// Why serde_json's tree refuses what is no fault in a value that nobody reads.
const PASSED_OVER: [&str; 5] =
    ["recursion limit exceeded", "number out of range", "surrogate", "unexpected end of hex escape", "invalid unicode code point"];

/// All that a bid is decided by, as text.
fn read(document: Result<Document<'_>, Malformed>) -> Result<String, Malformed> {
    let document = document?;
    let mut request = BidRequest::of(&document)?;
    assert!(request.imps.len() <= MAX_IMPS && (1..=MAX_ID_BYTES).contains(&request.id.len()));
    let mut text = format!("{request:?}");
    for imp in std::mem::take(&mut request.imps) {
        assert!(imp.floor_nanos >= 0 && imp.deals.iter().all(|deal| deal.floor_nanos >= 0), "{imp:?}");
        text += &format!("{:?}", Opportunity::of(&request, &imp, "x1", "tradedesk"));
    }
    Ok(text)
}

fn requests() -> Vec<Vec<u8>> {
    let native = json!({"native": {"context": 1, "plcmttype": 1, "eventtrackers": [{"event": 1, "methods": [1]}], "assets": [
        {"id": 1, "required": 1, "title": {"len": 90}}, {"id": 2, "img": {"w": 1, "h": 1}}, {"id": 3, "data": {"type": 2}},
        {"id": 4, "video": {"mimes": ["video/mp4"], "protocols": [2], "minduration": 1, "maxduration": 9}}]}});
    let whole = json!({
        "id": "r", "at": 1, "tmax": 100, "test": 0, "cur": ["eur"], "bcat": ["IAB25"], "badv": ["Bad.example"], "bapp": ["x"],
        "wseat": ["acme"], "bseat": ["other"], "ext": {"deep": [[1, {"a": null}]]},
        "imp": [
            {"id": "1", "tagid": "top", "bidfloor": 0.25, "bidfloorcur": "usd", "secure": 1,
             "banner": {"w": 300, "h": 250, "format": [{"w": 728, "h": 90}, {"wmin": 10, "wratio": 2, "hratio": 1}]},
             "pmp": {"private_auction": 0, "deals": [{"id": "d", "bidfloor": 1.5, "bidfloorcur": "EUR"}]}},
            {"id": "2", "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30, "w": 640, "h": 480}},
            {"id": "3", "audio": {"mimes": ["audio/mpeg"], "maxduration": 30}},
            {"id": "4", "native": {"request": native.to_string(), "ver": "1.2"}}],
        "site": {"domain": "News.example", "cat": ["IAB12"], "page": "https://news.example/a"},
        "device": {"dnt": 0, "lmt": 0, "ifa": "abc", "w": 1, "h": 1, "geo": {"country": "de"}},
        "user": {"id": "u", "buyeruid": "b", "consent": "c", "ext": {"consent": "d"}},
        "regs": {"coppa": 0, "gdpr": 1, "us_privacy": "1YNN", "gpp": "g", "ext": {"gdpr": 1, "us_privacy": "1YNN"}}
    });
    let mut seeds = vec![whole.to_string().into_bytes()];
    if let Some(folder) = std::env::var_os("KIKI_CONFORMANCE_DATA") {
        let text = std::fs::read_to_string(std::path::Path::new(&folder).join("openrtb/requests.jsonl")).unwrap_or_default();
        let request = |line: &str| serde_json::from_str::<Value>(line).unwrap()["request"].to_string().into_bytes();
        seeds.extend(text.lines().map(request));
    }
    seeds
}

fn same_as_its_tree(body: &[u8]) {
    let found = read(Document::json(body));
    let shown = String::from_utf8_lossy(body);
    match serde_json::from_slice::<Value>(body) {
        Ok(tree) => assert_eq!(found, read(Document::json(tree.to_string().as_bytes())), "{shown}"),
        Err(error) if PASSED_OVER.iter().any(|why| error.to_string().contains(why)) => {}
        Err(error) => assert_eq!(found.expect_err(&shown).field, "body", "{error}: {shown}"),
    }
}

#[test]
fn json_is_read_as_its_tree_is() {
    let (mut mutator, runs) = fuzzing();
    let seeds = requests();
    seeds.iter().for_each(|body| same_as_its_tree(body));
    for _ in 0..runs {
        same_as_its_tree(&mutator.json(&seeds));
    }
}

fn messages() -> Vec<Vec<u8>> {
    let text = |text: &str| Some(text.to_owned());
    let banner = pb::Banner { w: Some(300), h: Some(250), format: vec![pb::Format { w: Some(728), h: Some(90), ..Default::default() }] };
    let asset = pb::NativeAsset { id: Some(1), required: Some(true), title: Some(pb::NativeTitle { len: Some(9) }), ..Default::default() };
    let tracker = pb::NativeEventTracker { event: Some(1), methods: vec![1, 2] };
    let markup = pb::NativeRequest { assets: vec![asset], context: Some(1), eventtrackers: vec![tracker], ..Default::default() };
    let deal = pb::Deal { id: "d".into(), bidfloor: Some(1.5), bidfloorcur: text("EUR") };
    let video = pb::Video { mimes: vec!["video/mp4".into()], protocols: vec![2, 3], maxduration: Some(30), ..Default::default() };
    let imp = pb::Imp {
        id: "1".into(),
        banner: Some(banner),
        video: Some(video),
        tagid: text("top"),
        bidfloor: Some(0.25),
        pmp: Some(pb::Pmp { private_auction: Some(false), deals: vec![deal] }),
        native: Some(pb::Native { request: text("{}"), request_native: Some(markup) }),
        ..Default::default()
    };
    let request = pb::BidRequest {
        id: "r".into(),
        imp: vec![imp.clone(), pb::Imp { id: "2".into(), ..imp }],
        app: Some(pb::App { domain: text("App.example"), cat: vec!["IAB1".into()], bundle: text("com.app") }),
        device: Some(pb::Device { geo: Some(pb::Geo { country: text("FRA") }), ifa: text("abc"), lmt: Some(false), ..Default::default() }),
        user: Some(pb::User { buyeruid: text("b"), consent: text("c"), ..Default::default() }),
        tmax: Some(100),
        cur: vec!["EUR".into()],
        bcat: vec!["IAB7".into(), "IAB8".into()],
        bapp: vec!["com.rival".into()],
        regs: Some(pb::Regs { gdpr: Some(true), ..Default::default() }),
        ..Default::default()
    };
    vec![request.encode_to_vec(), pb::BidRequest { id: "r".into(), imp: request.imp, ..Default::default() }.encode_to_vec()]
}

fn same_as_its_message(body: &[u8]) {
    let found = read(Document::protobuf(body));
    match pb::BidRequest::decode(body) {
        Ok(message) => assert_eq!(found, read(Document::protobuf(&message.encode_to_vec())), "{body:?}"),
        Err(error) => assert_eq!(found.expect_err(&format!("{body:?}")).field, "body", "{error}: {body:?}"),
    }
}

#[test]
fn protobuf_is_read_as_its_message_is() {
    let (mut mutator, runs) = fuzzing();
    let seeds = messages();
    for body in &seeds {
        same_as_its_message(body);
        read(Document::protobuf(body)).unwrap();
    }
    for _ in 0..runs {
        same_as_its_message(&mutator.bytes(&seeds));
    }
}
