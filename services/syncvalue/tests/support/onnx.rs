//! Networks as ONNX files, written by hand: what someone who brings their own would export.

use prost::Message as _;
use syncvalue::domain::model::Member;
use syncvalue::domain::model::network::{EPSILON, GATES, HIDDEN, INPUTS, OUTPUTS};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};

/// A graph that is being written: each operation's result is named after it.
#[derive(Default)]
pub(crate) struct Graph(GraphProto);

impl Graph {
    /// A constant of 32-bit floats.
    pub(crate) fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let dims = shape.iter().map(|n| *n as i64).collect();
        let raw_data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let data_type = DataType::Float as i32;
        self.0.initializer.push(TensorProto { name: name.into(), dims, data_type, raw_data, ..Default::default() });
        name.into()
    }

    /// A constant of 64-bit integers; a single number where the shape is empty.
    pub(crate) fn integers(&mut self, name: &str, shape: &[usize], values: &[i64]) -> String {
        let dims = shape.iter().map(|n| *n as i64).collect();
        let raw_data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let data_type = DataType::Int64 as i32;
        self.0.initializer.push(TensorProto { name: name.into(), dims, data_type, raw_data, ..Default::default() });
        name.into()
    }

    /// An operation with one result.
    pub(crate) fn op(&mut self, op: &str, name: &str, input: &[&str], attribute: Vec<AttributeProto>) -> String {
        let input = input.iter().map(|name| (*name).into()).collect();
        let node = NodeProto { op_type: op.into(), name: name.into(), input, output: vec![name.into()], attribute, ..Default::default() };
        self.0.node.push(node);
        name.into()
    }

    /// The file. A dimension that is none is any.
    pub(crate) fn file(mut self, input: (&str, &[Option<usize>]), output: (&str, &[Option<usize>])) -> Vec<u8> {
        self.0.name = "network".into();
        self.0.input = vec![value(input)];
        self.0.output = vec![value(output)];
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 13 }];
        ModelProto { ir_version: 7, opset_import, graph: Some(self.0), ..Default::default() }.encode_to_vec()
    }
}

fn value((name, shape): (&str, &[Option<usize>])) -> ValueInfoProto {
    let dim = |n: &Option<usize>| Dimension { denotation: String::new(), value: n.map(|n| dimension::Value::DimValue(n as i64)) };
    let shape = Some(TensorShapeProto { dim: shape.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { denotation: String::new(), value: Some(type_proto::Value::TensorType(tensor)) }),
        ..Default::default()
    }
}

pub(crate) fn whole(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..Default::default() }
}

pub(crate) fn wholes(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints: ints.to_vec(), ..Default::default() }
}

/// One of our networks over exactly `weeks` weeks, a multiple of every dilation: a layer with dilation d is an ordinary GRU over d
/// histories side by side.
pub(crate) fn network(member: &Member, weeks: usize) -> Vec<u8> {
    let Member { layout, parameters: p, .. } = member;
    let mut g = Graph::default();
    let weight = g.constant("embed.weight", &[INPUTS, HIDDEN], &p[layout.embed..layout.embed + INPUTS * HIDDEN]);
    let bias = g.constant("embed.bias", &[HIDDEN], &p[layout.embed_bias..layout.embed_bias + HIDDEN]);
    g.constant("epsilon", &[1], &[EPSILON]);
    let shape = g.integers("shape", &[3], &[1, weeks as i64, HIDDEN as i64]);
    let product = g.op("MatMul", "embed.product", &["weeks", &weight], vec![]);
    let mut x = g.op("Add", "embedded", &[&product, &bias], vec![]);
    for (i, layer) in layout.layers.iter().enumerate() {
        let d = layer.dilation;
        let named = |name: &str| format!("layers.{i}.{name}");
        let u = normalised(&mut g, &named("norm"), &x, &p[layer.gain..layer.gain + HIDDEN]);
        let shape_beside = g.integers(&named("beside"), &[3], &[(weeks / d) as i64, d as i64, HIDDEN as i64]);
        let beside = g.op("Reshape", &named("u"), &[&u, &shape_beside], vec![]);
        let w = g.constant(&named("w"), &[1, GATES, HIDDEN], &turned(&p[layer.input..layer.input + HIDDEN * GATES]));
        let r = g.constant(&named("r"), &[1, GATES, HIDDEN], &turned(&p[layer.state..layer.state + HIDDEN * GATES]));
        let biases = [layer.input_bias, layer.state_bias].map(|at| ordered(&p[at..at + GATES])).concat();
        let b = g.constant(&named("b"), &[1, 2 * GATES], &biases);
        let attributes = vec![whole("hidden_size", HIDDEN as i64), whole("linear_before_reset", 1)];
        let h = g.op("GRU", &named("gru"), &[&beside, &w, &r, &b], attributes);
        let h = g.op("Reshape", &named("h"), &[&h, &shape], vec![]);
        x = g.op("Add", &named("x"), &[&x, &h], vec![]);
    }
    let last = g.integers("last", &[], &[weeks as i64 - 1]);
    let top = g.op("Gather", "top", &[&x, &last], vec![whole("axis", 1)]);
    let f = normalised(&mut g, "norm", &top, &p[layout.gain..layout.gain + HIDDEN]);
    let weight = g.constant("heads.weight", &[HIDDEN, OUTPUTS], &p[layout.out..layout.out + HIDDEN * OUTPUTS]);
    let product = g.op("MatMul", "heads.product", &[&f, &weight], vec![]);
    let week = g.op("Gather", "week", &["weeks", &last], vec![whole("axis", 1)]);
    let weight = g.constant("heads.skip", &[INPUTS, OUTPUTS], &p[layout.skip..layout.skip + INPUTS * OUTPUTS]);
    let skip = g.op("MatMul", "heads.skipped", &[&week, &weight], vec![]);
    let bias = g.constant("heads.bias", &[OUTPUTS], &p[layout.out_bias..layout.out_bias + OUTPUTS]);
    let sum = g.op("Add", "heads.sum", &[&product, &skip], vec![]);
    g.op("Add", "heads", &[&sum, &bias], vec![]);
    g.file(("weeks", &[Some(1), Some(weeks), Some(INPUTS)]), ("heads", &[Some(1), Some(OUTPUTS)]))
}

fn normalised(g: &mut Graph, name: &str, x: &str, gain: &[f32]) -> String {
    let named = |what: &str| format!("{name}.{what}");
    let squares = g.op("Mul", &named("squares"), &[x, x], vec![]);
    let mean = g.op("ReduceMean", &named("mean"), &[&squares], vec![wholes("axes", &[-1]), whole("keepdims", 1)]);
    let more = g.op("Add", &named("more"), &[&mean, "epsilon"], vec![]);
    let root = g.op("Sqrt", &named("root"), &[&more], vec![]);
    let unit = g.op("Div", &named("unit"), &[x, &root], vec![]);
    let gain = g.constant(&named("gain"), &[HIDDEN], gain);
    g.op("Mul", &named("out"), &[&unit, &gain], vec![])
}

/// Columns r, z, n as rows z, r, n.
fn turned(weights: &[f32]) -> Vec<f32> {
    let column = |gate: usize| weights.chunks(GATES).map(move |row| row[gate]);
    [1, 0, 2].into_iter().flat_map(|of| of * HIDDEN..(of + 1) * HIDDEN).flat_map(column).collect()
}

fn ordered(bias: &[f32]) -> Vec<f32> {
    [1, 0, 2].into_iter().flat_map(|of| bias[of * HIDDEN..(of + 1) * HIDDEN].iter().copied()).collect()
}
