//! Sequences of requests of all kinds, against a whole control plane: each is answered, once and in order, and what they have made
//! can be deleted.

use std::cell::RefCell;
use wharf_control::api::json::{field_size, size};
use wharf_control::api::schema::{Field, Kind, MessageDef, Role, Shape, TypeDef};
use wharf_control::api::testing::Loopback;

/// Messages of one input.
const MOST: usize = 200;

/// The control plane, which all inputs use one after the other, and what it has when it is new.
struct Lab {
    loopback: Loopback,
    requests: Vec<(u16, &'static MessageDef)>,
    inventory: Vec<String>,
}

thread_local! {
    static LAB: RefCell<Lab> = RefCell::new(Lab::new());
}

/// Makes requests of the input, sends them, and takes back what they did.
pub fn run(data: &[u8]) {
    LAB.with_borrow_mut(|lab| lab.run(data));
}

impl Lab {
    fn new() -> Lab {
        let mut loopback = Loopback::start().expect("the control plane starts");
        let all = loopback.registry().messages().collect::<Vec<_>>();
        let requests = all.into_iter().filter(|(_, def)| is_request(def)).collect();
        // What is made at first use stays.
        loopback.exchange(&[]).expect("it answers");
        loopback.command("set acl-plugin acl permit").expect("it takes lists");
        loopback.delete_everything().expect("there is nothing");
        let inventory = loopback.inventory().expect("it shows what it has");
        Lab { loopback, requests, inventory }
    }

    fn run(&mut self, data: &[u8]) {
        let mut input = Input { data, dir: self.loopback.dir().display().to_string() };
        let mut requests = Vec::new();
        while !input.data.is_empty() && requests.len() < MOST {
            // Two bytes reach all of them; one, those that a feature answers.
            let answered: Vec<_> =
                self.requests.iter().filter(|(_, def)| self.loopback.registry().is_answered(def)).collect();
            let choice = input.byte() as usize;
            let (id, def) = match choice {
                0xf0.. => self.requests[input.byte() as usize % self.requests.len()],
                _ => *answered[choice % answered.len()],
            };
            let mut message = id.to_be_bytes().to_vec();
            message.extend_from_slice(&[0; 4]);
            message.extend_from_slice(&(requests.len() as u32).to_be_bytes());
            input.fields(&def.fields[2..], &mut message);
            assert!(self.loopback.registry().decode(&message).is_ok(), "{} is not well made", def.name);
            requests.push(message);
        }
        let answers = self.loopback.exchange(&requests).expect("well-made requests are answered");
        if let Err(why) = self.loopback.check_answers(&requests, &answers) {
            panic!("{why}");
        }
        self.loopback.delete_everything().expect("what was made can be deleted");
        let left = self.loopback.inventory().expect("it shows what it has");
        for (left, before) in left.iter().zip(&self.inventory) {
            assert_eq!(left, before, "not all is given back");
        }
    }
}

/// Whether it is one that clients send and that does not end the connection.
fn is_request(def: &MessageDef) -> bool {
    let names = def.fields.iter().map(|field| field.name);
    !matches!(def.role, Role::Answer)
        && names.take(2).eq(["client_index", "context"])
        && def.name != "sockclnt_delete"
}

/// The bytes that decide; 0 behind their end.
struct Input<'a> {
    data: &'a [u8],
    dir: String,
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.data.split_first().unwrap_or((&0, &[]));
        self.data = rest;
        *first
    }

    /// A number: small, as an index or an address needs to meet another, or the largest, or anything.
    fn number(&mut self, len: usize, out: &mut Vec<u8>) {
        let byte = self.byte();
        let mut bytes = [0; 8];
        match byte {
            0..=0xdf => {
                bytes[7] = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 16, 24, 30, 31, 32, 100][byte as usize % 16]
            }
            0xe0..=0xef => bytes = [0xff; 8],
            _ => bytes.fill_with(|| self.byte()),
        }
        out.extend_from_slice(&bytes[8 - len.min(8)..]);
    }

    /// A text that leads to nothing outside of this process and its directory.
    fn text(&mut self, field: &str) -> String {
        let byte = self.byte() as usize;
        let number = byte / 16 % 4;
        match field {
            "cmd" => {
                let commands = [
                    "show interface",
                    "create loopback interface",
                    "set interface state loop0 up",
                    "ip route add count 100 10.3.0.0/24 via drop",
                    "delete loopback interface intfc loop0",
                    "show ip fib",
                    "no such command",
                    "",
                ];
                commands[byte % commands.len()].into()
            }
            "filename" => format!("{}/not-allowed", self.dir),
            name if name.contains("file") => format!("{}/{number}", self.dir),
            _ => {
                let names =
                    ["", "x", "loop0", "loop1", "pg0", "memif0/0", "local0", "ip4-lookup", "drop", "\u{e9}"];
                names[byte % names.len()].into()
            }
        }
    }

    fn fields(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        let lists = fields.iter().filter_map(|field| match field.shape {
            Shape::Counted(count) => Some(count),
            _ => None,
        });
        let lengths: Vec<(&str, usize)> = lists.map(|count| (count, self.byte() as usize % 4)).collect();
        let length = |name: &str| lengths.iter().find(|(count, _)| *count == name).map(|(_, len)| *len);
        for field in fields {
            match field.shape {
                _ if length(field.name).is_some() => {
                    let bytes = length(field.name).unwrap_or_default().to_be_bytes();
                    out.extend_from_slice(&bytes[8 - size(field.ty).min(8)..]);
                }
                Shape::Counted(count) => {
                    (0..length(count).unwrap_or_default()).for_each(|_| self.value(field.ty, out));
                }
                _ => self.field(field, out),
            }
        }
    }

    /// A field that is no list.
    fn field(&mut self, field: &Field, out: &mut Vec<u8>) {
        let is_text = field.ty.name == "string";
        match field.shape {
            Shape::Text => {
                let text = self.text(field.name);
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Shape::Fixed(len) if is_text => {
                let text = self.text(field.name);
                let end = out.len() + len;
                out.extend(text.bytes().take(len.saturating_sub(1)));
                out.resize(end, 0);
            }
            Shape::Fixed(len) => (0..len).for_each(|_| self.value(field.ty, out)),
            Shape::One | Shape::Counted(_) => self.value(field.ty, out),
        }
    }

    fn value(&mut self, ty: &TypeDef, out: &mut Vec<u8>) {
        match &ty.kind {
            Kind::Base(len) => self.number(*len, out),
            Kind::Alias(field) => self.field(field, out),
            Kind::Record(fields) => self.fields(fields, out),
            Kind::Union(fields) => {
                let end = out.len() + size(ty);
                if let Some(field) = fields.get(self.byte() as usize % fields.len().max(1)) {
                    debug_assert!(field_size(field) <= size(ty));
                    self.field(field, out);
                }
                out.resize(end, 0);
            }
            Kind::Enum(def) => {
                let byte = self.byte() as usize;
                let value = match def.values.get(byte % (def.values.len() + 1)) {
                    Some((_, value)) => *value,
                    None => i64::from(self.byte()),
                };
                let len = size(def.repr).min(8);
                out.extend_from_slice(&value.to_be_bytes()[8 - len..]);
            }
        }
    }
}
