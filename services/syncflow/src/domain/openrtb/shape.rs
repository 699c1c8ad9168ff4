//! Which fields are read: the one table by which a document in either format becomes a [`Tape`](super::tape::Tape).
//!
//! Names, numbers and types are those of `proto/openrtb/v2/openrtb.proto`; a test holds the two against each other. A field
//! without a number occurs in JSON alone. What is in no table is passed over, whatever it holds.

/// How protobuf writes a field. JSON's values say themselves what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Whole,
    Flag,
    Double,
    /// Another object.
    Object,
}

/// One field of an object.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Its number in protobuf; 0 where it is in JSON alone.
    pub(super) number: u32,
    pub(super) kind: Kind,
    /// There may be many, in an array.
    pub(super) many: bool,
    /// Its own fields, where an object is read.
    pub(super) shape: Option<&'static Shape>,
}

/// The fields of an object that are read.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) fields: &'static [Field],
}

const fn scalar(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { name, number, kind, many: false, shape: None }
}

const fn text(number: u32, name: &'static str) -> Field {
    scalar(number, name, Kind::Text)
}

const fn whole(number: u32, name: &'static str) -> Field {
    scalar(number, name, Kind::Whole)
}

const fn flag(number: u32, name: &'static str) -> Field {
    scalar(number, name, Kind::Flag)
}

const fn double(number: u32, name: &'static str) -> Field {
    scalar(number, name, Kind::Double)
}

const fn object(number: u32, name: &'static str, shape: &'static Shape) -> Field {
    Field { name, number, kind: Kind::Object, many: false, shape: Some(shape) }
}

const fn many(field: Field) -> Field {
    Field { many: true, ..field }
}

const fn shape(fields: &'static [Field]) -> Shape {
    Shape { fields }
}

/// The document as a whole.
pub(super) static REQUEST: Field = object(0, "", &BID_REQUEST);
/// A native markup request: the document in `native.request`.
pub(super) static MARKUP: Field = object(0, "", &NATIVE_REQUEST);

static BID_REQUEST: Shape = shape(&[
    text(1, "id"),
    many(object(2, "imp", &IMP)),
    object(3, "site", &SITE),
    object(4, "app", &APP),
    object(5, "device", &DEVICE),
    object(6, "user", &USER),
    whole(7, "at"),
    whole(8, "tmax"),
    many(text(9, "wseat")),
    many(text(11, "cur")),
    many(text(12, "bcat")),
    many(text(13, "badv")),
    object(14, "regs", &REGS),
    flag(15, "test"),
    many(text(16, "bapp")),
    many(text(17, "bseat")),
    object(19, "source", &SOURCE),
    object(22, "dooh", &DOOH),
    many(text(23, "acat")),
]);

static SOURCE: Shape = shape(&[object(4, "schain", &SUPPLY_CHAIN), object(99, "ext", &SOURCE_EXT)]);

static SOURCE_EXT: Shape = shape(&[object(1, "schain", &SUPPLY_CHAIN)]);

static SUPPLY_CHAIN: Shape = shape(&[flag(1, "complete")]);

static IMP: Shape = shape(&[
    text(1, "id"),
    object(2, "banner", &BANNER),
    object(3, "video", &VIDEO),
    text(7, "tagid"),
    double(8, "bidfloor"),
    text(9, "bidfloorcur"),
    object(11, "pmp", &PMP),
    flag(12, "secure"),
    object(13, "native", &NATIVE),
    object(15, "audio", &AUDIO),
]);

static BANNER: Shape = shape(&[whole(1, "w"), whole(2, "h"), many(object(15, "format", &FORMAT))]);

static FORMAT: Shape = shape(&[whole(1, "w"), whole(2, "h"), whole(3, "wratio"), whole(4, "hratio"), whole(5, "wmin")]);

static VIDEO: Shape = shape(&[
    many(text(1, "mimes")),
    whole(3, "minduration"),
    whole(4, "maxduration"),
    whole(6, "w"),
    whole(7, "h"),
    whole(9, "sequence"),
    whole(12, "minbitrate"),
    whole(13, "maxbitrate"),
    many(whole(21, "protocols")),
    whole(28, "maxseq"),
]);

static AUDIO: Shape = shape(&[
    many(text(1, "mimes")),
    whole(2, "minduration"),
    whole(3, "maxduration"),
    whole(6, "sequence"),
    whole(9, "minbitrate"),
    whole(10, "maxbitrate"),
    whole(21, "maxseq"),
    // Sound has no size, and yet some requests give one.
    whole(0, "w"),
    whole(0, "h"),
]);

static NATIVE: Shape = shape(&[
    // Text with a document in it; some exchanges send the document itself.
    Field { shape: Some(&NATIVE_REQUEST), ..text(1, "request") },
    object(50, "request_native", &NATIVE_REQUEST),
]);

static NATIVE_REQUEST: Shape = shape(&[
    many(object(6, "assets", &NATIVE_ASSET)),
    whole(7, "context"),
    whole(8, "contextsubtype"),
    whole(9, "plcmttype"),
    many(object(13, "eventtrackers", &NATIVE_TRACKER)),
    // Native 1.0 wrapped everything in one more object.
    object(0, "native", &WRAPPED),
]);

static WRAPPED: Shape = shape(&[
    many(object(0, "assets", &NATIVE_ASSET)),
    whole(0, "context"),
    whole(0, "contextsubtype"),
    whole(0, "plcmttype"),
    many(object(0, "eventtrackers", &NATIVE_TRACKER)),
]);

static NATIVE_ASSET: Shape = shape(&[
    whole(1, "id"),
    flag(2, "required"),
    object(3, "title", &NATIVE_TITLE),
    object(4, "img", &NATIVE_IMAGE),
    object(5, "video", &VIDEO),
    object(6, "data", &NATIVE_DATA),
]);

static NATIVE_TITLE: Shape = shape(&[whole(1, "len")]);

static NATIVE_IMAGE: Shape = shape(&[whole(2, "w"), whole(3, "h"), whole(4, "wmin"), whole(5, "hmin")]);

static NATIVE_DATA: Shape = shape(&[whole(1, "type")]);

static NATIVE_TRACKER: Shape = shape(&[whole(1, "event"), many(whole(2, "methods"))]);

static PMP: Shape = shape(&[flag(1, "private_auction"), many(object(2, "deals", &DEAL))]);

static DEAL: Shape = shape(&[text(1, "id"), double(2, "bidfloor"), text(3, "bidfloorcur")]);

static SITE: Shape = shape(&[text(3, "domain"), many(text(4, "cat")), text(7, "page")]);

static APP: Shape = shape(&[text(3, "domain"), many(text(4, "cat")), text(8, "bundle")]);

static DOOH: Shape = shape(&[text(6, "domain"), many(text(0, "cat"))]);

static DEVICE: Shape = shape(&[flag(1, "dnt"), object(4, "geo", &GEO), text(20, "ifa"), flag(23, "lmt"), whole(25, "w"), whole(26, "h")]);

static GEO: Shape = shape(&[text(3, "country")]);

static USER: Shape = shape(&[text(1, "id"), text(2, "buyeruid"), text(10, "consent"), object(99, "ext", &USER_EXT)]);

static USER_EXT: Shape = shape(&[text(1, "consent")]);

static REGS: Shape = shape(&[
    flag(1, "coppa"),
    text(2, "gpp"),
    flag(4, "gdpr"),
    text(5, "us_privacy"),
    object(99, "ext", &REGS_EXT),
    object(0, "dsa", &DSA),
]);

static REGS_EXT: Shape = shape(&[flag(1, "gdpr"), text(2, "us_privacy"), object(4, "dsa", &DSA), flag(0, "coppa"), text(0, "gpp")]);

static DSA: Shape = shape(&[whole(1, "dsarequired"), whole(2, "pubrender")]);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost_reflect::{DescriptorPool, Kind as Type, MessageDescriptor};

    use super::*;

    /// Holds a table against its message: every field of the message is in the table, and every numbered one of the table in the message.
    fn same(shape: &Shape, message: &MessageDescriptor) {
        let name = message.name();
        for field in message.fields() {
            let found = shape.fields.iter().find(|one| one.number == field.number());
            let found = found.unwrap_or_else(|| panic!("{name}.{} is not read", field.name()));
            let kind = match field.kind() {
                Type::String => Kind::Text,
                Type::Int32 => Kind::Whole,
                Type::Bool => Kind::Flag,
                Type::Double => Kind::Double,
                Type::Message(inner) => {
                    same(found.shape.unwrap(), &inner);
                    Kind::Object
                }
                other => panic!("{name}.{} is a {other:?}", field.name()),
            };
            assert_eq!((found.name, found.kind, found.many), (field.name(), kind, field.is_list()), "{name}");
        }
        let numbered = shape.fields.iter().filter(|field| field.number != 0).count();
        assert_eq!(numbered, message.fields().len(), "{name}");
        for (at, field) in shape.fields.iter().enumerate() {
            assert!(shape.fields[..at].iter().all(|other| other.name != field.name), "{name}.{} stands twice", field.name);
        }
    }

    #[test]
    fn the_tables_are_the_messages() {
        let pool = DescriptorPool::decode(kiki::pb::DESCRIPTORS);
        same(&BID_REQUEST, &pool.unwrap().get_message_by_name("openrtb.v2.BidRequest").unwrap());
    }
}
