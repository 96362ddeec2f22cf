"""Whether our code keeps to what every flavor of TensorRT offers."""
