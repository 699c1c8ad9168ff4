//! Says in a PDF/A's metadata that it is a Factur-X file: the writer of PDFs has no place for that.
//!
//! An incremental update (ISO 32000-1, 7.5.6) replaces the metadata stream: the bytes before it stay as they are.
//! The properties are those of Factur-X 1.0, and PDF/A wants their schema described beside them (ISO 19005-3, 6.6.2.3).

use super::{ATTACHMENT, PdfError};

const NAMESPACE: &str = "urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#";
const PROFILE: &str = "EN 16931";

const PROPERTIES: [(&str, &str, &str); 4] = [
    ("DocumentFileName", ATTACHMENT, "name of the embedded XML invoice file"),
    ("DocumentType", "INVOICE", "type of the document"),
    ("Version", "1.0", "version of the schema of the embedded XML"),
    ("ConformanceLevel", PROFILE, "conformance level of the embedded XML"),
];

fn refused(why: &str) -> PdfError {
    PdfError::Refused { why: format!("its metadata cannot be extended: {why}") }
}

/// The last place of some bytes.
fn last(bytes: &[u8], of: &[u8]) -> Option<usize> {
    bytes.windows(of.len()).rposition(|window| window == of)
}

fn between<'a>(bytes: &'a [u8], start: &[u8], end: &[u8]) -> Option<&'a [u8]> {
    let from = last(bytes, start)? + start.len();
    let length = bytes[from..].windows(end.len()).position(|window| window == end)?;
    Some(&bytes[from..from + length])
}

/// The file with the properties in its metadata.
pub(super) fn declare(mut pdf: Vec<u8>) -> Result<Vec<u8>, PdfError> {
    let xmp = between(&pdf, b"<?xpacket begin", b"endstream").ok_or_else(|| refused("no metadata"))?;
    let xmp = std::str::from_utf8(xmp).map_err(|_| refused("metadata is not UTF-8"))?.trim_end();
    let xmp = extended(&format!("<?xpacket begin{xmp}")).ok_or_else(|| refused("no list of schemas"))?;
    let trailer = between(&pdf, b"trailer", b"startxref").ok_or_else(|| refused("no trailer"))?;
    let trailer =
        trailer.trim_ascii().strip_prefix(b"<<").and_then(|inner| inner.strip_suffix(b">>")).ok_or_else(|| refused("trailer"))?.to_vec();
    let previous = between(&pdf, b"startxref", b"%%EOF").ok_or_else(|| refused("no startxref"))?.trim_ascii().to_vec();
    let object = metadata_object(&pdf).ok_or_else(|| refused("no metadata object"))?;

    if !pdf.ends_with(b"\n") {
        pdf.push(b'\n');
    }
    let object_at = pdf.len();
    let head = format!("{object} 0 obj\n<</Length {}/Type/Metadata/Subtype/XML>>\nstream\n", xmp.len());
    pdf.extend([head.as_bytes(), xmp.as_bytes(), b"\nendstream\nendobj\n"].concat());
    let table_at = pdf.len();
    pdf.extend(format!("xref\n{object} 1\n{object_at:010} 00000 n \ntrailer\n<<").as_bytes());
    pdf.extend(trailer);
    pdf.extend([b"/Prev ", previous.as_slice(), format!(">>\nstartxref\n{table_at}\n%%EOF\n").as_bytes()].concat());
    Ok(pdf)
}

/// The number of the metadata stream's object, from the catalog's reference.
fn metadata_object(pdf: &[u8]) -> Option<u32> {
    let reference = between(pdf, b"/Metadata ", b" 0 R")?;
    std::str::from_utf8(reference).ok()?.trim().parse().ok()
}

/// The metadata with the values, and with their schema among those that the writer describes already.
fn extended(xmp: &str) -> Option<String> {
    let values: String = PROPERTIES.iter().map(|(name, value, _)| format!("<fx:{name}>{value}</fx:{name}>")).collect();
    let of = |(name, _, what): &(&str, &str, &str)| {
        format!(
            "<rdf:li rdf:parseType=\"Resource\"><pdfaProperty:name>{name}</pdfaProperty:name>\
             <pdfaProperty:valueType>Text</pdfaProperty:valueType><pdfaProperty:category>external</pdfaProperty:category>\
             <pdfaProperty:description>{what}</pdfaProperty:description></rdf:li>"
        )
    };
    let properties: String = PROPERTIES.iter().map(of).collect();
    let schema = format!(
        "<rdf:li rdf:parseType=\"Resource\"><pdfaSchema:schema>Factur-X PDFA Extension Schema</pdfaSchema:schema>\
         <pdfaSchema:namespaceURI>{NAMESPACE}</pdfaSchema:namespaceURI><pdfaSchema:prefix>fx</pdfaSchema:prefix>\
         <pdfaSchema:property><rdf:Seq>{properties}</rdf:Seq></pdfaSchema:property></rdf:li>"
    );
    let (before, rest) = xmp.split_once("<pdfaExtension:schemas><rdf:Bag>")?;
    let (middle, end) = rest.rsplit_once("</rdf:RDF>")?;
    Some(format!(
        "{before}<pdfaExtension:schemas><rdf:Bag>{schema}{middle}\
         <rdf:Description rdf:about=\"\" xmlns:fx=\"{NAMESPACE}\">{values}</rdf:Description></rdf:RDF>{end}"
    ))
}
