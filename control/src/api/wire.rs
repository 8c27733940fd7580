//! The codec: how values stand in a message. All numbers are big-endian, but for `f64`, which VPP leaves in the host's order.

use super::schema::{Field, Kind, Shape, TypeDef};

/// A message that ends too early, or whose counts can't be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is shorter than it says")]
pub struct Malformed;

/// A message in the making.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Place and length of a count whose list has not come yet.
    count: Option<(usize, usize)>,
}

impl Writer {
    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How long it is.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// The rest of a message that is being read.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, count: 0 }
    }

    /// The next `n` bytes.
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }
}

/// A value that a field can have.
pub trait Wire: Sized {
    /// Its type, or that of its elements.
    const TYPE: &'static TypeDef;
    /// How often that stands there; for a list, `Counted("")`.
    const SHAPE: Shape = Shape::One;

    /// Appends it.
    fn put(&self, out: &mut Writer);

    /// Reads it.
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// The field of type `T` with this name; `count` names the field that says how long a list is.
pub const fn field<T: Wire>(
    name: &'static str,
    count: Option<&'static str>,
    default: Option<&'static str>,
) -> Field {
    let shape = match (T::SHAPE, count) {
        (Shape::Counted(_), Some(count)) => Shape::Counted(count),
        (Shape::Counted(_), None) => panic!("a list needs the name of its count"),
        (_, Some(_)) => panic!("only a list has a count"),
        (shape, None) => shape,
    };
    Field { name, ty: T::TYPE, shape, default }
}

macro_rules! number {
    ($($type:ident)*) => {$(
        impl Wire for $type {
            const TYPE: &'static TypeDef =
                &TypeDef { name: stringify!($type), kind: Kind::Base(size_of::<$type>()) };

            fn put(&self, out: &mut Writer) {
                out.raw(&self.to_be_bytes());
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok($type::from_be_bytes(from.array()?))
            }
        }
    )*};
}

number!(u8 u16 u32 u64 i8 i16 i32 i64);

impl Wire for f64 {
    const TYPE: &'static TypeDef = &TypeDef { name: "f64", kind: Kind::Base(8) };

    fn put(&self, out: &mut Writer) {
        out.raw(&self.to_ne_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(f64::from_ne_bytes(from.array()?))
    }
}

impl Wire for bool {
    const TYPE: &'static TypeDef = &TypeDef { name: "bool", kind: Kind::Base(1) };

    fn put(&self, out: &mut Writer) {
        out.raw(&[u8::from(*self)]);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(u8::take(from)? != 0)
    }
}

impl<T: Wire, const N: usize> Wire for [T; N] {
    const TYPE: &'static TypeDef = T::TYPE;
    const SHAPE: Shape = Shape::Fixed(N);

    fn put(&self, out: &mut Writer) {
        self.iter().for_each(|item| item.put(out));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut items = Vec::with_capacity(N);
        for _ in 0..N {
            items.push(T::take(from)?);
        }
        items.try_into().map_err(|_| Malformed)
    }
}

/// Where the length of a list stands; the list follows, perhaps behind other fields. It is counted when it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count<T>(std::marker::PhantomData<T>);

impl<T: Wire + TryInto<u64> + Default> Wire for Count<T> {
    const TYPE: &'static TypeDef = T::TYPE;

    fn put(&self, out: &mut Writer) {
        let at = out.len();
        T::default().put(out);
        out.count = Some((at, out.len() - at));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = T::take(from)?.try_into().map_err(|_| Malformed)?;
        from.count = usize::try_from(count).map_err(|_| Malformed)?;
        Ok(Count(std::marker::PhantomData))
    }
}

impl<T: Wire> Wire for Vec<T> {
    const TYPE: &'static TypeDef = T::TYPE;
    const SHAPE: Shape = Shape::Counted("");

    /// Items that the count has no room for are left out.
    fn put(&self, out: &mut Writer) {
        let Some((at, len)) = out.count.take() else { return };
        let most = u64::MAX >> (64 - 8 * len.clamp(1, 8));
        let count = (self.len() as u64).min(most);
        out.bytes[at..at + len].copy_from_slice(&count.to_be_bytes()[8 - len..]);
        self.iter().take(count as usize).for_each(|item| item.put(out));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = std::mem::take(&mut from.count);
        // An item takes a byte at least: a count beyond that is a lie, and must not cost memory.
        if count > from.rest.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| T::take(from)).collect()
    }
}

const CHARACTER: &TypeDef = &TypeDef { name: "string", kind: Kind::Base(1) };

/// A text in a field of `N` bytes, the last of them 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<const N: usize>(pub String);

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Text<N> {
        Text(text.into())
    }
}

impl<const N: usize> Wire for Text<N> {
    const TYPE: &'static TypeDef = CHARACTER;
    const SHAPE: Shape = Shape::Fixed(N);

    /// What is too long is cut.
    fn put(&self, out: &mut Writer) {
        let mut bytes = [0; N];
        let text = self.0.as_bytes();
        let len = text.len().min(N.saturating_sub(1));
        bytes[..len].copy_from_slice(&text[..len]);
        out.raw(&bytes);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bytes = from.raw(N)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Text(String::from_utf8_lossy(text).into_owned()))
    }
}

impl Wire for String {
    const TYPE: &'static TypeDef = CHARACTER;
    const SHAPE: Shape = Shape::Text;

    fn put(&self, out: &mut Writer) {
        (self.len() as u32).put(out);
        out.raw(self.as_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = u32::take(from)?;
        let bytes = from.raw(len as usize)?;
        // C clients count the NUL.
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[&dyn Fn(&mut Writer)]) -> Vec<u8> {
        let mut out = Writer::default();
        values.iter().for_each(|put| put(&mut out));
        out.into_bytes()
    }

    #[test]
    fn lists_are_counted_where_their_count_stands() {
        let list = vec![0x0102u16, 3];
        let count = Count::<u8>::default();
        let got = bytes(&[&|o| count.put(o), &|o| 9u8.put(o), &|o| list.put(o)]);
        assert_eq!(got, [2, 9, 1, 2, 0, 3]);
        let mut reader = Reader::new(&got);
        Count::<u8>::take(&mut reader).unwrap();
        u8::take(&mut reader).unwrap();
        assert_eq!(Vec::<u16>::take(&mut reader).unwrap(), list);
        assert_eq!(Vec::<u16>::take(&mut reader).unwrap(), [0; 0], "a count serves one list");
    }

    #[test]
    fn a_list_too_long_for_its_count_is_cut_and_a_lying_count_costs_nothing() {
        let list = vec![7u8; 300];
        let got = bytes(&[&|o| Count::<u8>::default().put(o), &|o| list.put(o)]);
        assert_eq!((got[0], got.len()), (255, 256));
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]);
        Count::<u32>::take(&mut reader).unwrap();
        assert_eq!(Vec::<u64>::take(&mut reader), Err(Malformed));
    }

    #[test]
    fn texts_are_cut_and_padded() {
        let got = bytes(&[&|o| Text::<4>::from("abcdef").put(o), &|o| String::from("xy").put(o)]);
        assert_eq!(got, *b"abc\0\0\0\0\x02xy");
        assert_eq!(Text::<4>::take(&mut Reader::new(b"a\0bc")).unwrap(), "a".into());
        assert_eq!(String::take(&mut Reader::new(b"\0\0\0\x02x\0")).unwrap(), "x");
        assert_eq!(String::take(&mut Reader::new(b"\0\0\0\x03xy")), Err(Malformed));
    }
}
