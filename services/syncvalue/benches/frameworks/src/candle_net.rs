//! The network in candle. A layer with dilation d runs d histories side by side.

use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::ops::sigmoid;
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use syncvalue::domain::model::Member;
use syncvalue::domain::model::network::{EPSILON, HIDDEN, INPUTS};

/// See the module.
pub struct Net {
    /// As [`syncvalue::domain::model::network::Layout::tensors`] has them.
    tensors: Vec<Tensor>,
    vars: Vec<Var>,
    dilations: Vec<usize>,
}

impl Net {
    /// With the weights of a member; to be trained or not.
    pub fn of(member: &Member, trained: bool) -> Result<Self> {
        let (mut tensors, mut vars) = (Vec::new(), Vec::new());
        for (_, at, [rows, columns]) in member.layout.tensors() {
            let tensor = Tensor::from_slice(&member.parameters[at..at + rows * columns], (rows, columns), &Device::Cpu)?;
            if trained {
                let var = Var::from_tensor(&tensor)?;
                tensors.push(var.as_tensor().clone());
                vars.push(var);
            } else {
                tensors.push(tensor);
            }
        }
        Ok(Self { tensors, vars, dilations: member.layout.layers.iter().map(|layer| layer.dilation).collect() })
    }

    /// Behind every week: customers x weeks x outputs.
    pub fn outputs(&self, inputs: &Tensor) -> Result<Tensor> {
        let top = self.top(inputs)?;
        self.heads(&top, inputs)
    }

    /// Behind the last week: customers x outputs.
    pub fn last(&self, inputs: &Tensor) -> Result<Tensor> {
        let (top, last) = (self.top(inputs)?, inputs.dim(1)? - 1);
        self.heads(&top.narrow(1, last, 1)?.contiguous()?, &inputs.narrow(1, last, 1)?.contiguous()?)?.squeeze(1)
    }

    fn heads(&self, top: &Tensor, inputs: &Tensor) -> Result<Tensor> {
        let [gain, out, skip, bias] = &self.tensors[2 + 5 * self.dilations.len()..] else { unreachable!("the layout has four") };
        product(&normalised(top, gain)?, out)?.add(&product(inputs, skip)?)?.broadcast_add(bias)
    }

    fn top(&self, inputs: &Tensor) -> Result<Tensor> {
        let mut x = product(inputs, &self.tensors[0])?.broadcast_add(&self.tensors[1])?;
        for (i, dilation) in self.dilations.iter().enumerate() {
            let [gain, weight, bias, state_weight, state_bias] = &self.tensors[2 + 5 * i..7 + 5 * i] else {
                unreachable!("a layer has five")
            };
            let products = product(&normalised(&x, gain)?, weight)?.broadcast_add(bias)?;
            let h = recurrent(&products, *dilation, state_weight, state_bias)?;
            x = x.add(&h)?;
        }
        Ok(x)
    }
}

/// Histories of as many weeks each, as a [`Net`] reads them: customers x weeks x inputs.
pub fn batch(histories: &[Vec<[f32; INPUTS]>]) -> Result<Tensor> {
    let numbers: Vec<f32> = histories.iter().flat_map(|weeks| weeks.as_flattened()).copied().collect();
    Tensor::from_vec(numbers, (histories.len(), histories[0].len(), INPUTS), &Device::Cpu)
}

/// Trains a [`Net`] with AdamW.
pub struct Training {
    net: Net,
    adam: AdamW,
}

impl Training {
    /// At this rate.
    pub fn new(member: &Member, rate: f64) -> Result<Self> {
        let net = Net::of(member, true)?;
        let adam = AdamW::new(net.vars.clone(), ParamsAdamW { lr: rate, ..Default::default() })?;
        Ok(Self { net, adam })
    }

    /// One step towards outputs of zero. Returns the mean of their squares before it.
    pub fn step(&mut self, batch: &Tensor) -> Result<Tensor> {
        let loss = self.net.outputs(batch)?.sqr()?.mean_all()?;
        self.adam.backward_step(&loss)?;
        Ok(loss)
    }
}

fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (customers, weeks, columns) = x.dims3()?;
    x.reshape((customers * weeks, columns))?.matmul(weight)?.reshape((customers, weeks, ()))
}

fn normalised(x: &Tensor, gain: &Tensor) -> Result<Tensor> {
    let root = x.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, f64::from(EPSILON))?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(gain)
}

fn recurrent(products: &Tensor, dilation: usize, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (customers, weeks, gates) = products.dims3()?;
    let rounds = weeks.div_ceil(dilation);
    let products = products.pad_with_zeros(1, 0, rounds * dilation - weeks)?.reshape((customers, rounds, dilation, gates))?;
    let mut h = Tensor::zeros((customers * dilation, HIDDEN), products.dtype(), &Device::Cpu)?;
    let mut all = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let input = products.narrow(1, round, 1)?.reshape((customers * dilation, gates))?;
        let state = h.matmul(weight)?.broadcast_add(bias)?;
        let both = sigmoid(&input.narrow(1, 0, 2 * HIDDEN)?.add(&state.narrow(1, 0, 2 * HIDDEN)?)?)?;
        let (r, z) = (both.narrow(1, 0, HIDDEN)?, both.narrow(1, HIDDEN, HIDDEN)?);
        let n = input.narrow(1, 2 * HIDDEN, HIDDEN)?.add(&r.mul(&state.narrow(1, 2 * HIDDEN, HIDDEN)?)?)?.tanh()?;
        h = n.add(&z.mul(&h.sub(&n)?)?)?;
        all.push(h.reshape((customers, dilation, HIDDEN))?);
    }
    Tensor::cat(&all, 1)?.narrow(1, 0, weeks)?.contiguous()
}
