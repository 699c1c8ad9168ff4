//! The messages of Predict, PredictBatch and PredictStream as bytes: read where they are, and written once.
//!
//! prost would make a text of every field of every question, and of the model's id in every answer, which takes longer than to find
//! the answers. What these calls are sent day in, day out is read by [`read`] without that; whatever else protobuf permits, and
//! whatever is wrong with a message, is left to prost, whose word counts. What [`read`] reads, prost reads the same way (tested on any bytes).

pub(super) mod read;
pub(super) mod write;
