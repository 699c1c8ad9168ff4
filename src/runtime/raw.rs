//! A codec of gRPC for messages that are bytes and stay so.

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Hands messages over as they are: for a server that reads protobuf where it lies, and for a client that sends what was encoded
/// before, or what is no message at all. A message comes as [`Bytes`], not copied, and goes as a `T`.
///
/// It refuses nothing: what is wrong with a message is for its reader to say. How long one may be is set at the server or the client.
pub struct Raw<T = Bytes>(PhantomData<fn(T)>);

// By hand: a derived one would ask the same of `T`.
impl<T> Default for Raw<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: AsRef<[u8]> + Send + 'static> Codec for Raw<T> {
    type Encode = T;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<T: AsRef<[u8]>> Encoder for Raw<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(message.as_ref());
        Ok(())
    }
}

impl<T> Decoder for Raw<T> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
