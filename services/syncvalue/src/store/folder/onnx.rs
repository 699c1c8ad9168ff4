//! A network that was brought along as an ONNX file, run by tract: `model.onnx` in a model's folder.
//!
//! | | name | type | shape |
//! |---|---|---|---|
//! | input | `weeks` | 32-bit floats | 1 (or any) x weeks (1 to 520) x 24: [`crate::domain::model::features`], oldest week first, zeros before the customer's first |
//! | output | `heads` | 32-bit floats | 1 x 8, or 1 x weeks x 8 of which the last counts: [`crate::domain::model::heads`] |
//!
//! That, and that a trial gives finite numbers, is checked when it is loaded. The file has to hold its weights itself: nothing else is read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{ModelProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::{DatumExt as _, Framework as _, InferenceModelExt as _, Tensor, TypedSimplePlan, tvec};

use crate::domain::model::given::Given;
use crate::domain::model::network::{INPUTS, OUTPUTS};

/// The name of the input.
pub const INPUT: &str = "weeks";
/// The name of the output.
pub const OUTPUT: &str = "heads";
/// Weeks that a network may read, at most.
pub const MAX_WEEKS: usize = 520;

/// A network in ONNX.
#[derive(Debug, Clone)]
pub struct Onnx {
    weeks: usize,
    plan: Arc<TypedSimplePlan>,
}

impl Onnx {
    /// Reads a file and tries it.
    ///
    /// # Errors
    /// What is wrong with it, and what was expected.
    pub fn read(file: &[u8]) -> Result<Self, String> {
        let onnx = tract_onnx::onnx();
        let weeks = guarded(|| {
            let proto = onnx.proto_model_for_read(&mut &*file).map_err(|e| format!("no ONNX file: {e:#}"))?;
            contract(&proto)
        })?;
        let plan = guarded(|| {
            let fact = f32::fact([1, weeks, INPUTS]).into();
            let model = onnx.model_for_read(&mut &*file).and_then(|model| model.with_input_fact(0, fact));
            let plan = model.and_then(|model| model.into_optimized()).and_then(TypedSimplePlan::new);
            plan.map_err(|e| format!("tract cannot run it: {e:#}"))
        })?;
        let onnx = Self { weeks, plan };
        for trial in [0.0, 1.0, -8.0, 8.0] {
            onnx.outputs(&vec![[trial; INPUTS]; weeks]).map_err(|e| format!("a trial with every input {trial}: {e}"))?;
        }
        Ok(onnx)
    }
}

impl Given for Onnx {
    fn weeks(&self) -> usize {
        self.weeks
    }

    fn outputs(&self, weeks: &[[f32; INPUTS]]) -> Result<[f32; OUTPUTS], String> {
        let out = guarded(|| {
            let input = Tensor::from_shape(&[1, weeks.len(), INPUTS], weeks.as_flattened()).map_err(|e| e.to_string())?;
            let found = self.plan.run(tvec!(input.into())).map_err(|e| format!("{e:#}"))?;
            let [found] = &*found else { return Err(format!("{} outputs; one is taken", found.len())) };
            last(found.shape(), found.try_as_plain_ram().and_then(|found| found.as_slice()).map_err(|e| e.to_string())?, weeks.len())
        })?;
        if out.iter().any(|x| !x.is_finite()) {
            return Err(format!("output {OUTPUT}: {out:?}; finite numbers are expected"));
        }
        Ok(out)
    }
}

/// tract may panic where a file is not what it says.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("tract cannot run it: it panicked".into()))
}

fn last(shape: &[usize], out: &[f32], weeks: usize) -> Result<[f32; OUTPUTS], String> {
    match (shape, out.last_chunk()) {
        ([1, OUTPUTS], Some(out)) => Ok(*out),
        ([1, many, OUTPUTS], Some(out)) if *many == weeks => Ok(*out),
        _ => Err(format!("output {OUTPUT}: shape {shape:?}; [1, {OUTPUTS}] or [1, {weeks}, {OUTPUTS}] is expected")),
    }
}

/// Checks names, types and shapes; the weeks that are read.
fn contract(model: &ModelProto) -> Result<usize, String> {
    let graph = model.graph.as_ref().ok_or("there is no graph in it")?;
    // Older files count weights among the inputs.
    let inputs: Vec<_> = graph.input.iter().filter(|input| graph.initializer.iter().all(|weight| weight.name != input.name)).collect();
    let names = |values: &[&ValueInfoProto]| values.iter().map(|value| value.name.clone()).collect::<Vec<_>>().join(", ");
    let [input] = inputs[..] else { return Err(format!("inputs: {}; one input `{INPUT}` is expected", names(&inputs))) };
    let outputs: Vec<_> = graph.output.iter().collect();
    let [output] = outputs[..] else { return Err(format!("outputs: {}; one output `{OUTPUT}` is expected", names(&outputs))) };
    for (value, kind, name) in [(input, "input", INPUT), (output, "output", OUTPUT)] {
        if value.name != name {
            return Err(format!("{kind}: it is named `{}`; `{name}` is expected", value.name));
        }
    }
    if !graph.node.iter().flat_map(|node| &node.output).any(|made| made == OUTPUT) {
        return Err(format!("output {OUTPUT}: no operation makes it"));
    }
    let shape = floats(input).map_err(|e| format!("input {INPUT}: {e}"))?;
    floats(output).map_err(|e| format!("output {OUTPUT}: {e}"))?;
    match shape[..] {
        [None | Some(1), Some(weeks), Some(INPUTS)] if (1..=MAX_WEEKS).contains(&weeks) => Ok(weeks),
        _ => {
            let found: Vec<_> = shape.iter().map(|n| n.map_or("any".to_owned(), |n| n.to_string())).collect();
            Err(format!("input {INPUT}: shape [{}]; [1 or any, 1 to {MAX_WEEKS}, {INPUTS}] is expected", found.join(", ")))
        }
    }
}

/// The shape of a tensor of 32-bit floats; none where a dimension is any.
fn floats(value: &ValueInfoProto) -> Result<Vec<Option<usize>>, String> {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err("no tensor; one of 32-bit floats is expected".into());
    };
    if tensor.elem_type != DataType::Float as i32 {
        let found = DataType::try_from(tensor.elem_type).map_or("unknown", |t| t.as_str_name());
        return Err(format!("a tensor of {found}; one of FLOAT is expected"));
    }
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    Ok(dims.map(|dim| if let Some(dimension::Value::DimValue(n)) = dim.value { usize::try_from(n).ok() } else { None }).collect())
}
