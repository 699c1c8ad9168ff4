//! Enough of JSON Schema to hold our own schemas against what is written and read.

use serde_json::Value;

/// The keywords that our schemas use; any other would be passed over, and so fails the test.
const KEYWORDS: [&str; 21] = [
    "$schema",
    "$defs",
    "$ref",
    "title",
    "description",
    "type",
    "properties",
    "additionalProperties",
    "required",
    "oneOf",
    "items",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];

/// What of a value is not as the schema says; enough of JSON Schema for ours.
pub(crate) fn faults(schema: &Value, root: &Value, value: &Value, at: &str) -> Vec<String> {
    let object = schema.as_object().unwrap();
    assert!(object.keys().all(|key| KEYWORDS.contains(&key.as_str())), "an unknown keyword at {at}: {:?}", object.keys());
    if let Some(name) = schema["$ref"].as_str() {
        return faults(root.pointer(&name[1..]).unwrap(), root, value, at);
    }
    let mut found = Vec::new();
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> =
        schema["type"].as_str().into_iter().chain(schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str)).collect();
    if !kinds.is_empty() && !kinds.contains(&kind) {
        return vec![format!("{at} is {kind}")];
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        found.push(format!("{at} is {value}"));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !regex::Regex::new(pattern).unwrap().is_match(text)
    {
        found.push(format!("{at} is {value}"));
    }
    let size =
        value.as_array().map(Vec::len).or(value.as_object().map(serde_json::Map::len)).or(value.as_str().map(str::len)).unwrap_or(0) as u64;
    let of = match kind {
        "array" => "Items",
        "object" => "Properties",
        _ => "Length",
    };
    let bound = |which: &str, default: u64| schema[format!("{which}{of}")].as_u64().unwrap_or(default);
    if !(bound("min", 0)..=bound("max", u64::MAX)).contains(&size) {
        found.push(format!("{at} has {size}"));
    }
    let within =
        |number: i64| number >= schema["minimum"].as_i64().unwrap_or(i64::MIN) && number <= schema["maximum"].as_i64().unwrap_or(i64::MAX);
    if value.as_i64().is_some_and(|number| !within(number)) {
        found.push(format!("{at} is {value}"));
    }
    let has = |required: &Value| required.as_array().into_iter().flatten().all(|name| value.get(name.as_str().unwrap()).is_some());
    if value.is_object() && !has(&schema["required"]) {
        found.push(format!("{at} lacks a field"));
    }
    if let Some(each) = schema["oneOf"].as_array()
        && each.iter().filter(|one| has(&one["required"])).count() != 1
    {
        found.push(format!("{at} is not one of"));
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let place = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Object(_)) => found.extend(faults(&schema["additionalProperties"], root, field, &place)),
            (Value::Null, _) => found.push(format!("{place} is unknown")),
            (known, _) => found.extend(faults(known, root, field, &place)),
        }
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(faults(&schema["items"], root, item, &format!("{at}[{i}]")));
    }
    found
}
