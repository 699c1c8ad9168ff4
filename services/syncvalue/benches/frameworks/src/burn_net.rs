//! The network in burn, on its own backend for processors (Flex). A layer with dilation d runs d histories side by side.

use burn::module::Param;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::sigmoid;
use burn::tensor::{DataError, Device, Tensor, TensorData};
use syncvalue::domain::model::Member;
use syncvalue::domain::model::network::{EPSILON, HIDDEN, INPUTS};

/// See the module.
pub struct Net {
    /// As [`syncvalue::domain::model::network::Layout::tensors`] has them.
    tensors: Vec<Param<Tensor<2>>>,
    dilations: Vec<usize>,
    device: Device,
}

/// Histories of as many weeks each.
pub struct Batch {
    customers: usize,
    weeks: usize,
    /// One behind the other: (customers x weeks) x inputs.
    inputs: Tensor<2>,
}

impl Net {
    /// With the weights of a member; to be trained or not.
    pub fn of(member: &Member, trained: bool) -> Self {
        let device = if trained { Device::flex().autodiff() } else { Device::flex() };
        let tensor = |(_, at, [rows, columns]): (String, usize, [usize; 2])| {
            let numbers = member.parameters[at..at + rows * columns].to_vec();
            Param::from_tensor(Tensor::from_data(TensorData::new(numbers, [rows, columns]), &device))
        };
        let tensors = member.layout.tensors().into_iter().map(tensor).collect();
        Self { tensors, dilations: member.layout.layers.iter().map(|layer| layer.dilation).collect(), device }
    }

    /// As it reads them.
    pub fn batch(&self, histories: &[Vec<[f32; INPUTS]>]) -> Batch {
        let (customers, weeks) = (histories.len(), histories[0].len());
        let numbers: Vec<f32> = histories.iter().flat_map(|weeks| weeks.as_flattened()).copied().collect();
        Batch { customers, weeks, inputs: Tensor::from_data(TensorData::new(numbers, [customers * weeks, INPUTS]), &self.device) }
    }

    /// Behind every week: (customers x weeks) x outputs.
    pub fn outputs(&self, batch: &Batch) -> Tensor<2> {
        self.heads(self.top(batch), batch.inputs.clone())
    }

    /// Behind the last week: customers x outputs, one behind the other.
    ///
    /// # Errors
    /// They are no numbers of 32 bits.
    pub fn last(&self, batch: &Batch) -> Result<Vec<f32>, DataError> {
        let Batch { customers, weeks, inputs } = batch;
        let last = |x: Tensor<2>| {
            let [_, columns] = x.dims();
            x.reshape([*customers, *weeks, columns]).narrow(1, weeks - 1, 1).reshape([*customers, columns])
        };
        self.heads(last(self.top(batch)), last(inputs.clone())).into_data().try_to_vec()
    }

    fn heads(&self, top: Tensor<2>, inputs: Tensor<2>) -> Tensor<2> {
        let [gain, out, skip, bias] = &self.tensors[2 + 5 * self.dilations.len()..] else { unreachable!("the layout has four") };
        normalised(top, gain).matmul(out.val()) + inputs.matmul(skip.val()) + bias.val()
    }

    fn top(&self, batch: &Batch) -> Tensor<2> {
        let mut x = batch.inputs.clone().matmul(self.tensors[0].val()) + self.tensors[1].val();
        for (i, dilation) in self.dilations.iter().enumerate() {
            let [gain, weight, bias, state_weight, state_bias] = &self.tensors[2 + 5 * i..7 + 5 * i] else {
                unreachable!("a layer has five")
            };
            let products = normalised(x.clone(), gain).matmul(weight.val()) + bias.val();
            x = x + recurrent(products, batch, *dilation, state_weight, state_bias);
        }
        x
    }
}

/// Trains a [`Net`] with AdamW.
pub struct Training {
    net: Net,
    adam: ModuleOptimizer,
    rate: f64,
}

impl Training {
    /// At this rate; what else AdamW is told is what candle tells it.
    pub fn new(member: &Member, rate: f64) -> Self {
        let adam = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.01);
        Self { net: Net::of(member, true), adam: adam.init(), rate }
    }

    /// As [`Net::batch`].
    pub fn batch(&self, histories: &[Vec<[f32; INPUTS]>]) -> Batch {
        self.net.batch(histories)
    }

    /// One step towards outputs of zero. Returns the mean of their squares before it.
    pub fn step(&mut self, batch: &Batch) -> Tensor<1> {
        let loss = self.net.outputs(batch).square().mean();
        let tensors = std::mem::take(&mut self.net.tensors);
        let gradients = GradientsParams::from_grads(loss.backward(), &tensors);
        self.net.tensors = self.adam.step(self.rate, tensors, gradients);
        loss
    }
}

fn normalised(x: Tensor<2>, gain: &Param<Tensor<2>>) -> Tensor<2> {
    let root = x.clone().square().mean_dim(1).add_scalar(EPSILON).sqrt();
    x / root * gain.val()
}

fn recurrent(
    products: Tensor<2>,
    Batch { customers, weeks, inputs }: &Batch,
    dilation: usize,
    weight: &Param<Tensor<2>>,
    bias: &Param<Tensor<2>>,
) -> Tensor<2> {
    let ([_, gates], side_by_side) = (products.dims(), customers * dilation);
    let rounds = weeks.div_ceil(dilation);
    let missing = Tensor::zeros([*customers, rounds * dilation - weeks, gates], &inputs.device());
    let products = Tensor::cat(vec![products.reshape([*customers, *weeks, gates]), missing], 1);
    let products: Tensor<4> = products.reshape([*customers, rounds, dilation, gates]);
    let mut h = Tensor::zeros([side_by_side, HIDDEN], &inputs.device());
    let mut all = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let input: Tensor<2> = products.clone().narrow(1, round, 1).reshape([side_by_side, gates]);
        let state = h.clone().matmul(weight.val()) + bias.val();
        let both = sigmoid(input.clone().narrow(1, 0, 2 * HIDDEN) + state.clone().narrow(1, 0, 2 * HIDDEN));
        let (r, z) = (both.clone().narrow(1, 0, HIDDEN), both.narrow(1, HIDDEN, HIDDEN));
        let n = (input.narrow(1, 2 * HIDDEN, HIDDEN) + r * state.narrow(1, 2 * HIDDEN, HIDDEN)).tanh();
        h = n.clone() + z * (h - n);
        all.push(h.clone().reshape([*customers, dilation, HIDDEN]));
    }
    Tensor::cat(all, 1).narrow(1, 0, *weeks).reshape([customers * weeks, HIDDEN])
}
