use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde_json::{Error, Number, Value as Json};

/// Whole numbers up to here are the same as doubles.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_992.0;

/// The deepest nesting of arguments: protobuf reads at most 100 nested messages, and each level takes three.
const MAX_DEPTH: usize = 32;

/// Converts arguments, a struct or a map, into a [`Struct`]. Numbers are sent as doubles, and NaN and infinity as null, as in
/// `serde_json`.
///
/// # Errors
///
/// The arguments are not a JSON object, are nested too deep, or have an integer that a double can't hold.
pub fn pack(arguments: &impl Serialize) -> Result<Struct, Error> {
    match packed(serde_json::to_value(arguments)?, "arguments", MAX_DEPTH)? {
        Kind::StructValue(arguments) => Ok(arguments),
        _ => Err(Error::custom("arguments: must be an object, such as a struct or a map")),
    }
}

/// Converts a value into a type of your own, or into a [`serde_json::Value`]. `None` is null.
///
/// # Errors
///
/// The value doesn't fit the type.
pub fn unpack<T: DeserializeOwned>(value: Option<Value>) -> Result<T, Error> {
    serde_json::from_value(unpacked(value.unwrap_or_default()))
}

fn packed(json: Json, path: &str, depth: usize) -> Result<Kind, Error> {
    Ok(match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(value) => Kind::NumberValue(double(&value, path)?),
        Json::String(value) => Kind::StringValue(value),
        Json::Array(_) | Json::Object(_) if depth == 0 => {
            let begin: String = path.chars().take(80).collect();
            return Err(Error::custom(format!("{begin}…: nested too deep to be sent: send it as a string of JSON")));
        }
        Json::Array(values) => {
            let values = values.into_iter().enumerate();
            let values = values.map(|(index, each)| value(each, &format!("{path}[{index}]"), depth - 1));
            Kind::ListValue(ListValue { values: values.collect::<Result<_, _>>()? })
        }
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(name, each)| {
                let each = value(each, &format!("{path}.{name}"), depth - 1)?;
                Ok::<_, Error>((name, each))
            });
            Kind::StructValue(Struct { fields: fields.collect::<Result<_, _>>()? })
        }
    })
}

fn value(json: Json, path: &str, depth: usize) -> Result<Value, Error> {
    Ok(Value { kind: Some(packed(json, path, depth)?) })
}

fn double(number: &Number, path: &str) -> Result<f64, Error> {
    let integer = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    #[expect(clippy::cast_possible_truncation, reason = "a double from an integer of 64 bits fits")]
    let fits = |double: &f64| double.is_finite() && integer.is_none_or(|integer| *double as i128 == integer);
    number.as_f64().filter(fits).ok_or_else(|| {
        let kind = if integer.is_some() { "integer" } else { "number" };
        Error::custom(format!("{path}: the {kind} {number} doesn't fit a double: send it as a string"))
    })
}

fn unpacked(value: Value) -> Json {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(value)) => Json::String(value),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(unpacked).collect(),
        Some(Kind::StructValue(object)) => {
            object.fields.into_iter().map(|(name, each)| (name, unpacked(each))).collect()
        }
    }
}

/// A whole number becomes an integer, or it would fit no field of such a type.
fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() <= MAX_SAFE_INTEGER && !(value == 0.0 && value.is_sign_negative()) {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
        return Json::from(value as i64);
    }
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}
