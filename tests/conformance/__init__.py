"""Whether our code keeps to what every flavour of TensorRT offers."""
