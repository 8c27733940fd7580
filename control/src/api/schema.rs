//! What messages are made of: the tables that [`crate::api!`] fills, and the CRC over them.
//!
//! A message's CRC is VPP's: CRC-32 over a textual form of its fields, folded over the types that they use. Clients ask for
//! `name_crc`, so a field that differs in name, type or order makes another message.

/// A type of a field.
#[derive(Debug)]
pub struct TypeDef {
    /// Its name: `u32`, or without VPP's `vl_api_` and `_t`: `interface_index`.
    pub name: &'static str,
    /// What it is made of.
    pub kind: Kind,
}

/// What a type is made of.
#[derive(Debug)]
pub enum Kind {
    /// A number of so many bytes, or a character of a string.
    Base(usize),
    /// Another name for a type, or for an array of it.
    Alias(&'static Field),
    /// Fields, packed.
    Record(&'static [Field]),
    /// One of its members; as long as the longest.
    Union(&'static [Field]),
    /// A number with names for its values.
    Enum(&'static EnumDef),
}

/// An enumeration.
#[derive(Debug)]
pub struct EnumDef {
    /// The number's type.
    pub repr: &'static TypeDef,
    /// Names and values.
    pub values: &'static [(&'static str, i64)],
    /// How many of them the CRC covers: later ones were added without changing it.
    pub covered: usize,
    /// Whether values are bits to be combined. VPP marks a few so.
    pub flags: bool,
}

/// How often a field's type stands in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Once.
    One,
    /// So many times; for a string, its bytes.
    Fixed(usize),
    /// As often as the field of this name says.
    Counted(&'static str),
    /// A string behind its own length.
    Text,
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: &'static TypeDef,
    /// How often that stands there.
    pub shape: Shape,
    /// What clients send when they are not told a value, as JSON.
    pub default: Option<&'static str>,
}

/// What a message is to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A request with one reply, named here.
    Call(&'static str),
    /// A request with any number of details, named here, and no end: a `control_ping` behind it shows that.
    Dump(&'static str),
    /// A request with any number of details, the first name, and then a reply, the second.
    Get(&'static str, &'static str),
    /// A request without an answer.
    Silent,
    /// What comes back: a reply, details or an event.
    Answer,
}

/// A message.
#[derive(Debug)]
pub struct MessageDef {
    /// Its name.
    pub name: &'static str,
    /// One line about it.
    pub doc: &'static str,
    /// Its fields, with those that the framework fills and without the message number.
    pub fields: &'static [Field],
    /// CRC of its definition.
    pub crc: u32,
    /// What it is.
    pub role: Role,
    /// Whether it changes nothing, so that who may only look may send it.
    pub reads: bool,
    /// How many of them, at the front, are the framework's.
    pub framework: usize,
    /// Reads the fields behind the framework's, to see whether they are all there.
    pub check: fn(&mut super::Reader<'_>) -> Result<(), super::Malformed>,
}

impl MessageDef {
    /// `name_crc`, as clients look it up.
    pub fn key(&self) -> String {
        format!("{}_{:08x}", self.name, self.crc)
    }
}

/// A file of VPP's definitions.
#[derive(Debug)]
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// Version of its definitions.
    pub version: (u32, u32, u32),
    /// Its messages, in VPP's order.
    pub messages: &'static [&'static MessageDef],
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// CRC-32 (IEEE 802.3) in the making, over a text that is never written down.
#[derive(Clone, Copy)]
struct Crc(u32);

impl Crc {
    const fn text(self, text: &str) -> Crc {
        let bytes = text.as_bytes();
        let mut crc = !self.0;
        let mut i = 0;
        while i < bytes.len() {
            crc = TABLE[((crc ^ bytes[i] as u32) & 0xff) as usize] ^ crc >> 8;
            i += 1;
        }
        Crc(!crc)
    }

    const fn number(self, value: i64) -> Crc {
        let (mut crc, mut rest) = (self, value.unsigned_abs());
        if value < 0 {
            crc = crc.text("-");
        }
        let mut scale = 1;
        while rest / scale >= 10 {
            scale *= 10;
        }
        while scale > 0 {
            const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
            crc = crc.text(DIGITS[(rest / scale) as usize]);
            rest %= scale;
            scale /= 10;
        }
        crc
    }

    const fn type_name(self, ty: &TypeDef) -> Crc {
        match ty.kind {
            Kind::Base(_) => self.text(ty.name),
            _ => self.text("vl_api_").text(ty.name).text("_t"),
        }
    }

    /// `['u8', 'data', 0, 'count']`, as Python prints it.
    const fn field(self, field: &Field) -> Crc {
        let crc = self.text("['").type_name(field.ty).text("', '").text(field.name).text("'");
        match field.shape {
            Shape::One => crc,
            Shape::Fixed(len) => crc.text(", ").number(len as i64).text(", None"),
            Shape::Text => crc.text(", 0, None"),
            Shape::Counted(count) => crc.text(", 0, '").text(count).text("'"),
        }
        .text("]")
    }

    const fn fields(self, fields: &[Field]) -> Crc {
        let mut crc = self.text("[");
        let mut i = 0;
        while i < fields.len() {
            if i > 0 {
                crc = crc.text(", ");
            }
            crc = crc.field(&fields[i]);
            i += 1;
        }
        crc.text("]")
    }

    const fn values(self, def: &EnumDef) -> Crc {
        let mut crc = self.text("[");
        let mut i = 0;
        while i < def.covered {
            if i > 0 {
                crc = crc.text(", ");
            }
            crc = crc.text("['").text(def.values[i].0).text("', ").number(def.values[i].1).text("]");
            i += 1;
        }
        crc.text("]")
    }

    /// Adds the types of the fields, and theirs.
    const fn types(self, fields: &[Field]) -> Crc {
        let mut crc = self;
        let mut i = 0;
        while i < fields.len() {
            crc = match &fields[i].ty.kind {
                Kind::Base(_) => crc,
                // An alias stands for an empty list there, whatever it is an alias of.
                Kind::Alias(_) => crc.text("[]"),
                Kind::Enum(def) => crc.values(def),
                Kind::Record(inner) | Kind::Union(inner) => crc.fields(inner).types(inner),
            };
            i += 1;
        }
        crc
    }
}

/// The CRC of a message with these fields.
pub const fn message_crc(fields: &[Field]) -> u32 {
    Crc(0).fields(fields).types(fields).0
}

/// The CRC of a module's definitions: over those of its messages.
pub fn module_crc(module: &Module) -> u32 {
    module.messages.iter().fold(Crc(0), |crc, m| crc.text(&m.key())).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_one_of_ieee_802_3_over_pythons_text() {
        assert_eq!(Crc(0).text("123456789").0, 0xcbf4_3926);
        assert_eq!(Crc(0).text("1234").text("56789").0, 0xcbf4_3926);
        for number in [0, 7, 10, 255, 4_294_967_295, -1, -165] {
            assert_eq!(Crc(0).number(number).0, Crc(0).text(&number.to_string()).0, "{number}");
        }
        const U32: TypeDef = TypeDef { name: "u32", kind: Kind::Base(4) };
        const fn field(name: &'static str) -> Field {
            Field { name, ty: &U32, shape: Shape::One, default: None }
        }
        const PING: u32 = message_crc(&[field("client_index"), field("context")]);
        assert_eq!(PING, 0x5107_7d14, "VPP's control_ping");
    }
}
