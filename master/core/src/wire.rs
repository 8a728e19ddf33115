//! How commands, rows and results become bytes: a version byte, then a protobuf message.
//!
//! The structs that the rest of the crate works with have typed fields (an [`quarry_types::InodeId`] is not an
//! `u64`); [`message!`] writes the protobuf twin of such a struct and the checked way back. Decoding never panics.

use quarry_types::{
    ChunkId, ClusterId, Crc32, Epoch, ErrorCode, InodeId, LeaseId, Lineage, NodeId, ServerId, SessionId,
};
use uuid::Uuid;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// A type that can be a field of a message.
pub(crate) trait Field: Sized {
    /// Its protobuf twin.
    type Raw;
    fn to_raw(&self) -> Self::Raw;
    fn from_raw(raw: Self::Raw) -> Result<Self, DecodeError>;
}

macro_rules! plain_field {
    ($($type:ty),*) => { $(
        impl Field for $type {
            type Raw = $type;
            fn to_raw(&self) -> $type { self.clone() }
            fn from_raw(raw: $type) -> Result<Self, DecodeError> { Ok(raw) }
        }
    )* };
}
plain_field!(u32, u64, bool, String, Vec<u8>);

macro_rules! number_field {
    ($($type:ident($raw:ty)),*) => { $(
        impl Field for $type {
            type Raw = $raw;
            fn to_raw(&self) -> $raw { self.0 }
            fn from_raw(raw: $raw) -> Result<Self, DecodeError> { Ok($type(raw)) }
        }
    )* };
}
number_field!(ChunkId(u64), InodeId(u64), SessionId(u64), LeaseId(u64), Epoch(u64), NodeId(u64), Crc32(u32));

macro_rules! uuid_field {
    ($($type:ident),*) => { $(
        impl Field for $type {
            type Raw = Vec<u8>;
            fn to_raw(&self) -> Vec<u8> { self.to_bytes() }
            fn from_raw(raw: Vec<u8>) -> Result<Self, DecodeError> {
                Self::from_bytes(&raw).ok_or_else(|| DecodeError(concat!("a ", stringify!($type), " is not 16 bytes").into()))
            }
        }
    )* };
}
uuid_field!(ClusterId, ServerId);

impl Field for Uuid {
    type Raw = Vec<u8>;
    fn to_raw(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn from_raw(raw: Vec<u8>) -> Result<Self, DecodeError> {
        Uuid::from_slice(&raw).map_err(|_| DecodeError("a UUID is not 16 bytes".into()))
    }
}

impl Field for ErrorCode {
    type Raw = u32;
    fn to_raw(&self) -> u32 {
        self.number()
    }
    fn from_raw(raw: u32) -> Result<Self, DecodeError> {
        Ok(ErrorCode::from_number(raw))
    }
}

impl<T: Field> Field for Vec<T> {
    type Raw = Vec<T::Raw>;
    fn to_raw(&self) -> Self::Raw {
        self.iter().map(Field::to_raw).collect()
    }
    fn from_raw(raw: Self::Raw) -> Result<Self, DecodeError> {
        raw.into_iter().map(T::from_raw).collect()
    }
}

/// The protobuf twin of a [`Lineage`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LineageWire {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
}

impl Field for Lineage {
    type Raw = LineageWire;
    fn to_raw(&self) -> LineageWire {
        LineageWire { number: self.number, id: self.id.to_raw() }
    }
    fn from_raw(raw: LineageWire) -> Result<Self, DecodeError> {
        Ok(Lineage { number: raw.number, id: Uuid::from_raw(raw.id)? })
    }
}

/// Whole values with a version byte in front.
pub trait Record: Sized {
    /// The bytes.
    fn encode(&self) -> Vec<u8>;
    /// Back from bytes.
    ///
    /// # Errors
    /// [`DecodeError`] when they are damaged or of a newer version.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// The version that this build writes, and the newest it reads.
pub(crate) const VERSION: u8 = 1;

/// `message` behind the version byte.
pub(crate) fn encode_versioned<M: prost::Message>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(VERSION);
    message.encode_raw(&mut bytes);
    bytes
}

/// The message behind the version byte.
pub(crate) fn decode_versioned<M: prost::Message + Default>(name: &str, bytes: &[u8]) -> Result<M, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, message)) => {
            M::decode(message).map_err(|e| DecodeError(format!("a {name} does not decode: {e}")))
        }
        Some((version, _)) => Err(DecodeError(format!(
            "a {name} has format version {version}, and this build reads version {VERSION}; run the newer build"
        ))),
        None => Err(DecodeError(format!("a {name} is empty"))),
    }
}

/// Declares a struct with typed fields and its protobuf twin.
macro_rules! message {
    ($(#[$doc:meta])* pub struct $name:ident as $wire:ident {
        $( $(#[$field_doc:meta])* $field:ident : $type:ty = ($($attr:tt)*), )*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        #[derive(Clone, PartialEq, ::prost::Message)]
        pub(crate) struct $wire {
            $( #[prost($($attr)*)] pub(crate) $field: <$type as $crate::wire::Field>::Raw, )*
        }

        impl $crate::wire::Field for $name {
            type Raw = $wire;
            fn to_raw(&self) -> $wire {
                $wire { $( $field: $crate::wire::Field::to_raw(&self.$field), )* }
            }
            fn from_raw(raw: $wire) -> Result<Self, $crate::wire::DecodeError> {
                // A message without fields uses nothing of it.
                let _ = &raw;
                Ok($name { $( $field: $crate::wire::Field::from_raw(raw.$field)?, )* })
            }
        }
    };
}

/// Makes a [`message!`] a [`Record`].
macro_rules! record {
    ($name:ident as $wire:ident) => {
        impl $crate::wire::Record for $name {
            fn encode(&self) -> Vec<u8> {
                $crate::wire::encode_versioned(&$crate::wire::Field::to_raw(self))
            }
            fn decode(bytes: &[u8]) -> Result<Self, $crate::wire::DecodeError> {
                let raw: $wire = $crate::wire::decode_versioned(stringify!($name), bytes)?;
                $crate::wire::Field::from_raw(raw)
            }
        }
    };
}

/// Declares an enum whose variants have numbers in bytes. An unknown number does not decode.
macro_rules! numbered {
    ($(#[$doc:meta])* pub enum $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $number:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[$variant_doc])* $variant = $number, )*
        }

        impl $crate::wire::Field for $name {
            type Raw = u32;
            fn to_raw(&self) -> u32 {
                *self as u32
            }
            fn from_raw(raw: u32) -> Result<Self, $crate::wire::DecodeError> {
                match raw {
                    $( $number => Ok($name::$variant), )*
                    _ => Err($crate::wire::DecodeError(
                        format!(concat!("{} is no ", stringify!($name), " that this build knows"), raw))),
                }
            }
        }
    };
}

/// Declares an enum whose variants each carry one [`message!`], and its protobuf twin.
macro_rules! choice {
    ($(#[$doc:meta])* $vis:vis enum $name:ident as $wire:ident, $oneof:ident = $oneof_name:tt, tags $tags:tt {
        $( $(#[$variant_doc:meta])* $variant:ident($type:ty) = ($($attr:tt)*), )*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[$variant_doc])* $variant($type), )*
        }

        #[derive(Clone, PartialEq, ::prost::Oneof)]
        pub(crate) enum $oneof {
            $( #[prost($($attr)*)] $variant(<$type as $crate::wire::Field>::Raw), )*
        }

        #[derive(Clone, PartialEq, ::prost::Message)]
        pub(crate) struct $wire {
            #[prost(oneof = $oneof_name, tags = $tags)]
            choice: Option<$oneof>,
        }

        impl $crate::wire::Field for $name {
            type Raw = $wire;
            fn to_raw(&self) -> $wire {
                let choice = match self {
                    $( $name::$variant(inner) => $oneof::$variant($crate::wire::Field::to_raw(inner)), )*
                };
                $wire { choice: Some(choice) }
            }
            fn from_raw(raw: $wire) -> Result<Self, $crate::wire::DecodeError> {
                match raw.choice {
                    $( Some($oneof::$variant(inner)) => Ok($name::$variant($crate::wire::Field::from_raw(inner)?)), )*
                    None => Err($crate::wire::DecodeError(
                        concat!("a ", stringify!($name), " of a kind that this build does not know").into())),
                }
            }
        }
    };
}
