//! The definitions as JSON, in the format of VPP's `*.api.json`, which clients load from files or ask for by `get_api_json`.

use super::schema::{Field, Kind, Module, Role, Shape, TypeDef, module_crc};
use serde_json::{Map, Value, json};

/// Bytes of a value of this type; of one that holds lists, without these.
pub fn size(ty: &TypeDef) -> usize {
    match &ty.kind {
        Kind::Base(size) => *size,
        Kind::Alias(field) => field_size(field),
        Kind::Enum(def) => size(def.repr),
        Kind::Record(fields) => fields.iter().map(field_size).sum(),
        Kind::Union(fields) => fields.iter().map(field_size).max().unwrap_or(0),
    }
}

fn field_size(field: &Field) -> usize {
    match field.shape {
        Shape::One => size(field.ty),
        Shape::Fixed(len) => len * size(field.ty),
        Shape::Counted(_) => 0,
        Shape::Text => 4,
    }
}

fn type_name(ty: &TypeDef) -> String {
    match ty.kind {
        Kind::Base(_) => ty.name.into(),
        _ => format!("vl_api_{}_t", ty.name),
    }
}

fn field(field: &Field) -> Value {
    let mut parts = vec![json!(type_name(field.ty)), json!(field.name)];
    match field.shape {
        Shape::One => {}
        Shape::Fixed(len) => parts.push(json!(len)),
        Shape::Text => parts.push(json!(0)),
        Shape::Counted(count) => parts.extend([json!(0), json!(count)]),
    }
    if let Some(default) = field.default {
        // Declared as a literal of JSON.
        parts.push(json!({ "default": serde_json::from_str::<Value>(default).unwrap_or_default() }));
    }
    Value::Array(parts)
}

/// The types that these fields need, each behind those that it needs itself.
fn collect(fields: &[Field], types: &mut Vec<&'static TypeDef>) {
    for field in fields {
        match &field.ty.kind {
            Kind::Base(_) => continue,
            Kind::Alias(inner) => collect(std::slice::from_ref(*inner), types),
            Kind::Record(inner) | Kind::Union(inner) => collect(inner, types),
            Kind::Enum(_) => {}
        }
        if !types.iter().any(|known| known.name == field.ty.name) {
            types.push(field.ty);
        }
    }
}

/// A module's definitions.
pub fn module(module: &Module) -> Value {
    let mut types = Vec::new();
    module.messages.iter().for_each(|message| collect(message.fields, &mut types));
    let (mut records, mut unions, mut enums, mut flags, mut aliases) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Map::new());
    for ty in types {
        let with_fields = |fields: &[Field]| {
            Value::Array(std::iter::once(json!(ty.name)).chain(fields.iter().map(field)).collect())
        };
        match &ty.kind {
            Kind::Base(_) => {}
            Kind::Record(fields) => records.push(with_fields(fields)),
            Kind::Union(fields) => unions.push(with_fields(fields)),
            Kind::Alias(of) => {
                let mut alias = Map::from_iter([("type".into(), json!(type_name(of.ty)))]);
                if let Shape::Fixed(len) = of.shape {
                    alias.insert("length".into(), json!(len));
                }
                aliases.insert(ty.name.into(), Value::Object(alias));
            }
            Kind::Enum(def) => {
                let values = def.values.iter().map(|(name, value)| json!([name, value]));
                let kind = json!({ "enumtype": def.repr.name });
                let whole = std::iter::once(json!(ty.name)).chain(values).chain([kind]).collect();
                if def.flags { flags.push(Value::Array(whole)) } else { enums.push(Value::Array(whole)) }
            }
        }
    }
    let messages: Vec<Value> = (module.messages.iter())
        .map(|message| {
            let start = [json!(message.name), json!(["u16", "_vl_msg_id"])];
            let end = json!({
                "crc": format!("0x{:08x}", message.crc), "options": {}, "comment": message.doc.trim()
            });
            start.into_iter().chain(message.fields.iter().map(field)).chain([end]).collect()
        })
        .collect();
    let mut services = Map::new();
    for message in module.messages {
        let service = match message.role {
            Role::Call(reply) => json!({ "reply": reply }),
            Role::Dump(details) => json!({ "reply": details, "stream": true }),
            Role::Get(details, reply) => json!({ "reply": reply, "stream": true, "stream_msg": details }),
            Role::Silent => json!({ "reply": "null" }),
            Role::Answer => continue,
        };
        services.insert(message.name.into(), service);
    }
    let (major, minor, patch) = module.version;
    json!({
        "module": module.name,
        "types": records,
        "messages": messages,
        "unions": unions,
        "enums": enums,
        "enumflags": flags,
        "services": services,
        "options": { "version": format!("{major}.{minor}.{patch}") },
        "aliases": aliases,
        "vl_api_version": format!("0x{:08x}", module_crc(module)),
        "imports": [],
        "counters": [],
        "paths": [],
    })
}
