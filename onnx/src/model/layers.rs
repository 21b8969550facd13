//! Layers with weights, found by their path in the bundle.

use std::fmt::Display;

use crate::graph::{Graph, Op, Value};
use crate::weights::WeightIndex;
use crate::{Error, Result};

/// A place in a network's tree of weights.
#[derive(Clone)]
pub struct Scope<'a> {
    weights: &'a WeightIndex,
    networks: Vec<&'a str>,
    path: String,
}

impl<'a> Scope<'a> {
    /// The root of a network, such as `unet`. A tensor that an earlier network of the list has wins, so
    /// `["adapter", "unet"]` is the UNet with the adapter's tensors in place of its own.
    pub fn new(weights: &'a WeightIndex, networks: &[&'a str]) -> Self {
        Self { weights, networks: networks.into(), path: String::new() }
    }

    /// A part of this place.
    #[must_use]
    pub fn child(&self, name: impl Display) -> Self {
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Self { path, ..self.clone() }
    }

    /// The place's path inside its network.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether a tensor is there.
    pub fn has(&self, name: &str) -> bool {
        self.full_name(name).is_some()
    }

    fn full_name(&self, name: &str) -> Option<String> {
        let path = self.child(name).path;
        self.networks.iter().map(|n| format!("{n}.{path}")).find(|full| self.weights.get(full).is_some())
    }

    /// A tensor in the graph's precision.
    ///
    /// # Errors
    /// When it is not there.
    pub fn weight(&self, g: &mut Graph, name: &str) -> Result<Value> {
        let full = self.full_name(name).unwrap_or_else(|| {
            let network = self.networks.last().copied().unwrap_or_default();
            format!("{network}.{}", self.child(name).path)
        });
        let value = g.weight(&full, self.weights.require(&full)?)?;
        let precision = g.precision;
        g.cast(value, precision)
    }

    /// A tensor whose shape must be as given, where 0 stands for any length.
    ///
    /// # Errors
    /// When it is not there or has another shape.
    pub fn shaped(&self, g: &mut Graph, name: &str, shape: &[usize]) -> Result<Value> {
        let value = self.weight(g, name)?;
        let found = g.shape(value);
        let fits = found.len() == shape.len() && found.iter().zip(shape).all(|(f, s)| *s == 0 || f == s);
        if fits {
            return Ok(value);
        }
        let message = format!("weight '{}' has shape {found:?}, expected {shape:?}", self.child(name).path);
        Err(Error::input(message).with_path(self.weights.path()))
    }

    /// A bias, if the layer has one.
    fn bias(&self, g: &mut Graph, length: usize) -> Result<Option<Value>> {
        if self.has("bias") { self.shaped(g, "bias", &[length]).map(Some) } else { Ok(None) }
    }
}

/// A torch linear layer over the last axis; its weight may be stored as a 1×1 convolution.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn linear(g: &mut Graph, scope: &Scope, x: Value) -> Result<Value> {
    g.set_scope(scope.path());
    let columns = g.shape(x).last().copied().unwrap_or(0);
    let mut weight = scope.weight(g, "weight")?;
    if let [out, inner, 1, 1] = *g.shape(weight) {
        weight = g.reshape(weight, &[out, inner])?;
    }
    let &[rows, inner] = g.shape(weight) else {
        return Err(Error::input(format!("weight '{}.weight' is no matrix: {:?}", scope.path(), g.shape(weight))));
    };
    if inner != columns {
        return Err(Error::input(format!("weight '{}.weight' takes {inner} channels, not {columns}", scope.path())));
    }
    let mut inputs = vec![x, weight];
    inputs.extend(scope.bias(g, rows)?);
    g.node(Op::Linear { transpose: true }, &inputs)
}

/// A convolution.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn conv(g: &mut Graph, scope: &Scope, x: Value, stride: usize, padding: [usize; 4]) -> Result<Value> {
    g.set_scope(scope.path());
    let channels = g.feature_map(x)?.channels;
    let weight = scope.shaped(g, "weight", &[0, channels, 0, 0])?;
    let out = g.shape(weight)[0];
    let mut inputs = vec![x, weight];
    inputs.extend(scope.bias(g, out)?);
    g.node(Op::Conv { stride, padding }, &inputs)
}

/// A 3×3 convolution that keeps the size.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn conv3(g: &mut Graph, scope: &Scope, x: Value) -> Result<Value> {
    conv(g, scope, x, 1, [1; 4])
}

/// A group norm over a feature map.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn group_norm(g: &mut Graph, scope: &Scope, x: Value, groups: usize, epsilon: f32) -> Result<Value> {
    g.set_scope(scope.path());
    let channels = g.feature_map(x)?.channels;
    if !channels.is_multiple_of(groups) {
        return Err(Error::input(format!("{}: {channels} channels are not {groups} equal groups", scope.path())));
    }
    let inputs = [x, scope.shaped(g, "weight", &[channels])?, scope.shaped(g, "bias", &[channels])?];
    g.node(Op::GroupNorm { groups, epsilon }, &inputs)
}

/// A layer norm over the last axis.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn layer_norm(g: &mut Graph, scope: &Scope, x: Value, epsilon: f32) -> Result<Value> {
    g.set_scope(scope.path());
    let channels = g.shape(x).last().copied().unwrap_or(0);
    let inputs = [x, scope.shaped(g, "weight", &[channels])?, scope.shaped(g, "bias", &[channels])?];
    g.node(Op::LayerNorm { epsilon }, &inputs)
}
