//! [`crate::api!`]: one declaration per type and message, from which everything else follows.

/// Declares types and messages of the binary API. From a declaration come a struct with its codec, its CRC, its JSON
/// definition and its entry in the module's list `MESSAGES`.
///
/// ```text
/// api! {
///     /// A line about it.                                    becomes documentation
///     alias InterfaceIndex = interface_index: u32;            a newtype; VPP's name on the right
///     enum LogLevel = log_level: u32 { LEVEL_A = 0, LEVEL_B = 1; LEVEL_ADDED_LATER = 2 }
///     flags XdpFlag = af_xdp_flag: u8 { FLAG_A = 1 }
///     record Prefix = prefix { address: Address, len: u8 }
///     union AddressUnion = address_union [16] { ip4: Ip4Address, ip6: Ip6Address }
///
///     call SetFlags = set_flags { index: u32 };                                  replied to by retval alone
///     call Create = create { name: Text<64>, is_add: bool = "true" } -> CreateReply = create_reply { index: u32 };
///     call Show = show [read] {} -> ShowReply = show_reply { index: u32 };       changes nothing; so do dump and get
///     dump Dump = x_dump {} -> Details = x_details { count: Count<u8>, list: Vec<u32>[count] };
///     dump Other = y_dump {} -> Entry = y_details [client_index] {};   some entries have a client_index before the context
///     get Get = x_get { cursor: u32 } -> GetReply = x_get_reply { cursor: u32 }, GetDetails = x_details { };
///     event Event = x_event { client_index: u32, pid: u32 };
///     silent Message = x { };             without reply;     `request`: with a reply declared as an event behind it
/// }
/// ```
///
/// A call's `client_index` and `context`, a reply's `context` and `retval` are the framework's and not written down.
#[macro_export]
macro_rules! api {
    ($($body:tt)*) => { $crate::api_items! { [] $($body)* } };
}

/// The steps of [`crate::api!`].
#[doc(hidden)]
#[macro_export]
macro_rules! api_items {
    ([]) => {};
    ([$($messages:expr),+]) => {
        /// The messages of this module, in VPP's order.
        pub const MESSAGES: &[&$crate::api::schema::MessageDef] = &[$($messages),+];
    };

    ($done:tt $(#[doc = $doc:literal])* alias $name:ident = $wire:ident : $inner:ty; $($rest:tt)*) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name(pub $inner);
        impl $crate::api::Wire for $name {
            const TYPE: &'static $crate::api::schema::TypeDef = &$crate::api::schema::TypeDef {
                name: stringify!($wire),
                kind: $crate::api::schema::Kind::Alias(&$crate::api::field::<$inner>("", None, None)),
            };
            fn put(&self, out: &mut $crate::api::Writer) {
                self.0.put(out);
            }
            fn take(from: &mut $crate::api::Reader<'_>) -> Result<Self, $crate::api::Malformed> {
                $crate::api::Wire::take(from).map($name)
            }
        }
        $crate::api_items! { $done $($rest)* }
    };

    ($done:tt $(#[doc = $doc:literal])* enum $name:ident $($more:tt)*) => {
        $crate::api_enum! { $done false [$($doc)*] $name $($more)* }
    };
    ($done:tt $(#[doc = $doc:literal])* flags $name:ident $($more:tt)*) => {
        $crate::api_enum! { $done true [$($doc)*] $name $($more)* }
    };

    ($done:tt $(#[doc = $doc:literal])* record $name:ident = $wire:ident {$($fields:tt)*} $($rest:tt)*) => {
        $crate::api_struct! { [$($doc)*] $name {$($fields)*} }
        impl $crate::api::Wire for $name {
            const TYPE: &'static $crate::api::schema::TypeDef = &$crate::api::schema::TypeDef {
                name: stringify!($wire),
                kind: $crate::api::schema::Kind::Record($crate::api_fields! { [] $($fields)* }),
            };
            fn put(&self, out: &mut $crate::api::Writer) {
                self.put_fields(out);
            }
            fn take(from: &mut $crate::api::Reader<'_>) -> Result<Self, $crate::api::Malformed> {
                Self::take_fields(from)
            }
        }
        $crate::api_items! { $done $($rest)* }
    };

    ($done:tt $(#[doc = $doc:literal])* union $name:ident = $wire:ident [$size:literal] {$($fields:tt)*} $($rest:tt)*) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub [u8; $size]);
        impl Default for $name {
            fn default() -> Self {
                $name([0; $size])
            }
        }
        impl $crate::api::Wire for $name {
            const TYPE: &'static $crate::api::schema::TypeDef = &$crate::api::schema::TypeDef {
                name: stringify!($wire),
                kind: $crate::api::schema::Kind::Union($crate::api_fields! { [] $($fields)* }),
            };
            fn put(&self, out: &mut $crate::api::Writer) {
                out.raw(&self.0);
            }
            fn take(from: &mut $crate::api::Reader<'_>) -> Result<Self, $crate::api::Malformed> {
                let mut bytes = [0; $size];
                bytes.copy_from_slice(from.raw($size)?);
                Ok($name(bytes))
            }
        }
        $crate::api_items! { $done $($rest)* }
    };

    // A call whose reply is a retval.
    ([$($done:expr),*] $(#[doc = $doc:literal])* call $name:ident = $wire:ident $([$access:ident])? {$($fields:tt)*}; $($rest:tt)*) => {
        $crate::api_message! { [$($doc)*] $name = $wire [client_index context] {$($fields)*}
            ($($access)?) Call(concat!(stringify!($wire), "_reply")) }
        impl $crate::api::Request for $name {}
        impl $crate::api::AutoReply for $name {
            const REPLY: &'static $crate::api::schema::MessageDef =
                &$crate::api::auto_reply(concat!(stringify!($wire), "_reply"));
        }
        $crate::api_items! {
            [$($done,)* <$name as $crate::api::Message>::DEF, <$name as $crate::api::AutoReply>::REPLY] $($rest)*
        }
    };

    // A call with a reply of its own.
    ([$($done:expr),*] $(#[doc = $doc:literal])* call $name:ident = $wire:ident $([$access:ident])? {$($fields:tt)*}
        -> $reply:ident = $reply_wire:ident {$($reply_fields:tt)*}; $($rest:tt)*) => {
        $crate::api_message! { [$($doc)*] $name = $wire [client_index context] {$($fields)*}
            ($($access)?) Call(stringify!($reply_wire)) }
        $crate::api_message! { [" The reply."] $reply = $reply_wire [context retval] {$($reply_fields)*} (read) Answer }
        impl $crate::api::Request for $name {}
        impl $crate::api::Call for $name {
            type Reply = $reply;
        }
        $crate::api_items! {
            [$($done,)* <$name as $crate::api::Message>::DEF, <$reply as $crate::api::Message>::DEF] $($rest)*
        }
    };

    ([$($done:expr),*] $(#[doc = $doc:literal])* dump $name:ident = $wire:ident {$($fields:tt)*}
        -> $details:ident = $details_wire:ident $([$head:ident])? {$($details_fields:tt)*}; $($rest:tt)*) => {
        $crate::api_message! { [$($doc)*] $name = $wire [client_index context] {$($fields)*}
            (read) Dump(stringify!($details_wire)) }
        $crate::api_message! { [" An entry."] $details = $details_wire [$($head)? context] {$($details_fields)*} (read) Answer }
        impl $crate::api::Request for $name {}
        impl $crate::api::Dump for $name {
            type Details = $details;
        }
        $crate::api_items! {
            [$($done,)* <$name as $crate::api::Message>::DEF, <$details as $crate::api::Message>::DEF] $($rest)*
        }
    };

    ([$($done:expr),*] $(#[doc = $doc:literal])* get $name:ident = $wire:ident {$($fields:tt)*}
        -> $reply:ident = $reply_wire:ident {$($reply_fields:tt)*},
        $details:ident = $details_wire:ident $([$head:ident])? {$($details_fields:tt)*}; $($rest:tt)*) => {
        $crate::api_message! { [$($doc)*] $name = $wire [client_index context] {$($fields)*}
            (read) Get(stringify!($details_wire), stringify!($reply_wire)) }
        $crate::api_message! { [" The reply behind the last entry."] $reply = $reply_wire [context retval]
            {$($reply_fields)*} (read) Answer }
        $crate::api_message! { [" An entry."] $details = $details_wire [$($head)? context] {$($details_fields)*} (read) Answer }
        impl $crate::api::Request for $name {}
        impl $crate::api::Call for $name {
            type Reply = $reply;
        }
        impl $crate::api::Dump for $name {
            type Details = $details;
        }
        $crate::api_items! {
            [$($done,)* <$name as $crate::api::Message>::DEF, <$reply as $crate::api::Message>::DEF,
                <$details as $crate::api::Message>::DEF] $($rest)*
        }
    };

    ([$($done:expr),*] $(#[doc = $doc:literal])* event $name:ident = $wire:ident {$($fields:tt)*}; $($rest:tt)*) => {
        $crate::api_message! { [$($doc)*] $name = $wire [] {$($fields)*} (read) Answer }
        $crate::api_items! { [$($done,)* <$name as $crate::api::Message>::DEF] $($rest)* }
    };

    ([$($done:expr),*] $(#[doc = $doc:literal])* silent $name:ident = $wire:ident {$($fields:tt)*}; $($rest:tt)*) => {
        $crate::api_message! { [$($doc)*] $name = $wire [] {$($fields)*} (read) Silent }
        $crate::api_items! { [$($done,)* <$name as $crate::api::Message>::DEF] $($rest)* }
    };

    ([$($done:expr),*] $(#[doc = $doc:literal])* request $name:ident = $wire:ident $([$access:ident])? {$($fields:tt)*}; $($rest:tt)*) => {
        $crate::api_message! { [$($doc)*] $name = $wire [] {$($fields)*}
            ($($access)?) Call(concat!(stringify!($wire), "_reply")) }
        $crate::api_items! { [$($done,)* <$name as $crate::api::Message>::DEF] $($rest)* }
    };
}

/// An enumeration of [`crate::api!`]: a number, as a peer may send any.
#[doc(hidden)]
#[macro_export]
macro_rules! api_enum {
    ($done:tt $flags:literal [$($doc:literal)*] $name:ident = $wire:ident : $repr:ident
        { $($value:ident = $number:literal),* $(,)? $(; $($late:ident = $late_number:literal),* $(,)?)? } $($rest:tt)*) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub $repr);
        #[allow(missing_docs, dead_code)]
        impl $name {
            $(pub const $value: $name = $name($number);)*
            $($(pub const $late: $name = $name($late_number);)*)?
        }
        impl $crate::api::Wire for $name {
            const TYPE: &'static $crate::api::schema::TypeDef = &$crate::api::schema::TypeDef {
                name: stringify!($wire),
                kind: $crate::api::schema::Kind::Enum(&$crate::api::schema::EnumDef {
                    repr: <$repr as $crate::api::Wire>::TYPE,
                    values: &[$((stringify!($value), $number),)* $($((stringify!($late), $late_number),)*)?],
                    covered: [$(stringify!($value)),*].len(),
                    flags: $flags,
                }),
            };
            fn put(&self, out: &mut $crate::api::Writer) {
                self.0.put(out);
            }
            fn take(from: &mut $crate::api::Reader<'_>) -> Result<Self, $crate::api::Malformed> {
                $crate::api::Wire::take(from).map($name)
            }
        }
        $crate::api_items! { $done $($rest)* }
    };
}

/// The struct of a record or message, with the codec of its fields.
#[doc(hidden)]
#[macro_export]
macro_rules! api_struct {
    ([$($doc:literal)*] $name:ident { $($field:ident : $ty:ty $([$count:ident])? $(= $default:literal)?),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        #[allow(missing_docs)] // Fields are VPP's and have VPP's meaning.
        pub struct $name { $(pub $field: $ty),* }
        #[allow(unused_variables)]
        impl $name {
            fn put_fields(&self, out: &mut $crate::api::Writer) {
                $($crate::api::Wire::put(&self.$field, out);)*
            }
            fn take_fields(from: &mut $crate::api::Reader<'_>) -> Result<Self, $crate::api::Malformed> {
                Ok($name { $($field: $crate::api::Wire::take(from)?),* })
            }
        }
    };
}

/// The table of fields of a record or message, behind those of its header.
#[doc(hidden)]
#[macro_export]
macro_rules! api_fields {
    ([$($header:ident)*] $($field:ident : $ty:ty $([$count:ident])? $(= $default:literal)?),* $(,)?) => {
        &[
            $($crate::api::header::$header,)*
            $($crate::api::field::<$ty>(
                $crate::api::field_name(stringify!($field)),
                $crate::api::first(&[$(stringify!($count))?]),
                $crate::api::first(&[$($default)?]),
            )),*
        ]
    };
}

/// Whether a message changes nothing.
#[doc(hidden)]
#[macro_export]
macro_rules! api_reads {
    () => {
        false
    };
    (read) => {
        true
    };
}

/// A message of [`crate::api!`].
#[doc(hidden)]
#[macro_export]
macro_rules! api_message {
    ([$($doc:literal)*] $name:ident = $wire:ident [$($header:ident)*] {$($fields:tt)*} ($($access:ident)?) $($role:tt)*) => {
        $crate::api_struct! { [$($doc)*] $name {$($fields)*} }
        impl $crate::api::Message for $name {
            const DEF: &'static $crate::api::schema::MessageDef = &{
                const FIELDS: &[$crate::api::schema::Field] = $crate::api_fields! { [$($header)*] $($fields)* };
                const CRC: u32 = $crate::api::schema::message_crc(FIELDS);
                $crate::api::schema::MessageDef {
                    name: stringify!($wire),
                    doc: concat!($($doc),*),
                    fields: FIELDS,
                    crc: CRC,
                    role: $crate::api::schema::Role::$($role)*,
                    reads: $crate::api_reads!($($access)?),
                    framework: $crate::api::count(&[$(stringify!($header)),*]),
                    check: |from| $name::take_fields(from).map(drop),
                }
            };
            fn put(&self, out: &mut $crate::api::Writer) {
                self.put_fields(out);
            }
            fn take(from: &mut $crate::api::Reader<'_>) -> Result<Self, $crate::api::Malformed> {
                Self::take_fields(from)
            }
        }
    };
}
