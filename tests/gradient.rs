//! Every gradient rule alone: what the graph transform gives against finite differences of the forward graph.

use motionclone::Cancel;
use motionclone::Result;
use motionclone::onnx::graph::gradient::{Forward, gradient};
use motionclone::onnx::graph::{Element, Graph, Layout, Op, Value, portable, write};
use motionclone::random::CpuGenerator;
use motionclone::runtime::{Input, Network, RunSettings, Runtime};
use ndarray::{ArrayD, IxDyn};

const STEP: f32 = 1e-2;

type Build = dyn Fn(&mut Graph, &[Value]) -> Result<Value>;

fn load(graph: &Graph) -> Network {
    let model = write::to_onnx(&portable::lower(graph).unwrap(), "", write::Shapes::Known).unwrap();
    let runtime = Runtime::load(None).unwrap();
    Network::load(runtime, &graph.name, &model, std::path::Path::new("."), &RunSettings::default()).unwrap()
}

fn run(network: &mut Network, names: &[String], arrays: &[ArrayD<f32>], output: &str) -> ArrayD<f32> {
    let inputs: Vec<(&str, Input)> = names.iter().map(String::as_str).zip(arrays.iter().map(Input::Array)).collect();
    network.run(&inputs, &Cancel::default()).unwrap().array(output).unwrap()
}

/// Compares the gradient of ⟨y, c⟩ at each of `at` with central differences, element by element.
fn check(name: &str, shapes: &[&[usize]], at: &[usize], build: &Build) {
    let mut draws = CpuGenerator::new(7);
    let mut draw = |shape: &[usize]| {
        let values = draws.randn(shape.iter().product::<usize>().max(1));
        ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()
    };
    let mut graph = Graph::new(name, Element::Float32, Layout::ChannelsFirst);
    let mut names: Vec<String> = (0..shapes.len()).map(|i| format!("x{i}")).collect();
    let inputs: Vec<Value> =
        shapes.iter().zip(&names).map(|(shape, name)| graph.input(name.clone(), Element::Float32, shape)).collect();
    let y = build(&mut graph, &inputs).unwrap();
    let mut arrays: Vec<ArrayD<f32>> = shapes.iter().map(|s| draw(s)).collect();
    graph.output("y", y);
    let mut forward = load(&graph);

    let shape = graph.shape(y).to_vec();
    let cotangent = draw(&shape);
    for at in at {
        let mut backward = Graph::new(name, Element::Float32, Layout::ChannelsFirst);
        let inputs: Vec<Value> = shapes
            .iter()
            .zip(&names)
            .map(|(shape, name)| backward.input(name.clone(), Element::Float32, shape))
            .collect();
        let y = build(&mut backward, &inputs).unwrap();
        let seed = backward.input("c", Element::Float32, &shape);
        let gradient = gradient(&mut backward, &[(y, seed)], inputs[*at], Forward::Kept).unwrap();
        backward.output("gradient", gradient);
        names.push("c".into());
        arrays.push(cotangent.clone());
        let found = run(&mut load(&backward), &names, &arrays, "gradient");
        names.pop();
        arrays.pop();

        let mut worst = 0f64;
        let mut largest = 0f64;
        for index in 0..arrays[*at].len() {
            let mut sides = [0f64; 2];
            for (side, step) in [STEP, -STEP].into_iter().enumerate() {
                let mut moved = arrays.clone();
                moved[*at].as_slice_mut().unwrap()[index] += step;
                let y = run(&mut forward, &names, &moved, "y");
                sides[side] = y.iter().zip(&cotangent).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum();
            }
            let expected = (sides[0] - sides[1]) / f64::from(2.0 * STEP);
            worst = worst.max((expected - f64::from(found.as_slice().unwrap()[index])).abs());
            largest = largest.max(expected.abs());
        }
        assert!(largest > 1e-2, "{name} at input {at}: the gradient vanishes, so nothing was tested");
        assert!(worst < 2e-3 * largest.max(1.0), "{name} at input {at}: off by {worst:.2e} of {largest:.2e}");
    }
}

fn node(op: Op) -> impl Fn(&mut Graph, &[Value]) -> Result<Value> {
    move |g, x| g.node(op.clone(), x)
}

#[test]
fn arithmetic_with_broadcasting() {
    for (name, op) in [("add", Op::Add), ("sub", Op::Sub), ("mul", Op::Mul)] {
        check(name, &[&[2, 3, 4], &[3, 1]], &[0, 1], &node(op.clone()));
        check(name, &[&[4], &[2, 3, 4]], &[0, 1], &node(op));
    }
}

#[test]
fn matrix_products() {
    check("matmul", &[&[2, 3, 4], &[2, 4, 5]], &[0, 1], &node(Op::MatMul));
    check("matmul broadcast", &[&[2, 3, 4], &[4, 5]], &[0, 1], &node(Op::MatMul));
    check("linear", &[&[2, 3, 4], &[5, 4], &[5]], &[0], &node(Op::Linear { transpose: true }));
    check("linear, plain", &[&[2, 3, 4], &[4, 5]], &[0], &node(Op::Linear { transpose: false }));
}

#[test]
fn convolutions() {
    let shapes: [&[usize]; 3] = [&[2, 3, 5, 6], &[4, 3, 3, 3], &[4]];
    check("conv", &shapes, &[0], &node(Op::Conv { stride: 1, padding: [1; 4] }));
    check("conv, stride 2, odd and even sizes", &shapes, &[0], &node(Op::Conv { stride: 2, padding: [1; 4] }));
    check("conv, padded at one side", &shapes, &[0], &node(Op::Conv { stride: 2, padding: [0, 0, 1, 1] }));
    check("conv 1×1", &[&[2, 3, 4, 4], &[5, 3, 1, 1]], &[0], &node(Op::Conv { stride: 1, padding: [0; 4] }));
}

#[test]
fn activations() {
    check("silu", &[&[3, 7]], &[0], &node(Op::Silu));
    check("geglu", &[&[3, 8]], &[0], &node(Op::Geglu));
    check("softmax", &[&[3, 7]], &[0], &node(Op::Softmax));
}

#[test]
fn norms() {
    check("layer norm", &[&[3, 8], &[8], &[8]], &[0], &node(Op::LayerNorm { epsilon: 1e-5 }));
    let shapes: [&[usize]; 3] = [&[2, 6, 3, 4], &[6], &[6]];
    check("group norm", &shapes, &[0], &node(Op::GroupNorm { groups: 3, epsilon: 1e-5 }));
}

#[test]
fn resizing() {
    check("resize ×2", &[&[1, 2, 3, 4]], &[0], &node(Op::Resize { height: 6, width: 8 }));
    check("resize to odd sizes", &[&[1, 2, 3, 2]], &[0], &node(Op::Resize { height: 5, width: 3 }));
    check("resize one way", &[&[1, 2, 3, 2]], &[0], &node(Op::Resize { height: 6, width: 3 }));
}

#[test]
fn attention() {
    let shapes: [&[usize]; 3] = [&[2, 5, 6], &[2, 3, 6], &[2, 3, 6]];
    check("attention", &shapes, &[0, 1, 2], &node(Op::Attention { heads: 2 }));
    // Self-attention: one value is query, key and value at once.
    check("self-attention", &[&[2, 5, 6]], &[0], &|g, x| g.attention(x[0], x[0], x[0], 3));
}

#[test]
fn shapes() {
    check("reshape", &[&[2, 6]], &[0], &node(Op::Reshape(vec![3, 4])));
    check("transpose", &[&[2, 3, 4]], &[0], &node(Op::Transpose(vec![1, 2, 0])));
    check("concat", &[&[2, 3], &[2, 4]], &[0, 1], &node(Op::Concat(1)));
    check("cast", &[&[4]], &[0], &|g, x| {
        let half = g.cast(x[0], Element::Float16)?;
        let back = g.cast(half, Element::Float32)?;
        // Half precision's steps would drown the differences.
        let zero = g.scale(back, 0.0)?;
        g.add(x[0], zero)
    });
}

#[test]
fn a_value_used_twice_gets_both_parts() {
    check("x · silu(x) + x", &[&[3, 4]], &[0], &|g, x| {
        let s = g.silu(x[0])?;
        let p = g.mul(s, x[0])?;
        g.add(p, x[0])
    });
}

#[test]
fn operations_without_a_rule_and_weights_are_refused() {
    let mut g = Graph::new("refused", Element::Float32, Layout::ChannelsFirst);
    let x = g.input("x", Element::Float32, &[2, 2]);
    let y = g.node(Op::Sin, &[x]).unwrap();
    let message = gradient(&mut g, &[(y, y)], x, Forward::Kept).unwrap_err().to_string();
    assert!(message.contains("no gradient rule for Sin"), "{message}");
    let y = g.node(Op::Linear { transpose: true }, &[x, x]).unwrap();
    let message = gradient(&mut g, &[(y, y)], x, Forward::Kept).unwrap_err().to_string();
    assert!(message.contains("no gradient at its weights"), "{message}");
    let other = g.input("other", Element::Float32, &[2, 2]);
    assert!(gradient(&mut g, &[(other, other)], x, Forward::Kept).is_err());
}
