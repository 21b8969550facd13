//! A small graph representation: builder, shapes, reverse-mode gradient, lowerings, ONNX protobuf.
