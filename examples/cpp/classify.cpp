// Runs a TensorRT plan of a bundle on one picture that is prepared already, and prints its first five classes.
//
//   classify PLAN PIXELS
//
// PIXELS holds (3, H, W) float32 as the network takes them: what `prepare` of examples/embed_onnx.py gives, written
// with `.tofile`. The plan is that of TensorRT 10 or 11 (not TensorRT-RTX), with float32 inputs and outputs.

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, char const* message) noexcept override {
        if (severity <= Severity::kWARNING) {
            std::fprintf(stderr, "TensorRT: %s\n", message);
        }
    }
};

void check(bool holds, std::string const& what) {
    if (!holds) {
        throw std::runtime_error(what);
    }
}

void check(cudaError_t status) {
    check(status == cudaSuccess, std::string("CUDA: ") + cudaGetErrorString(status));
}

std::vector<char> read(char const* path) {
    std::ifstream file(path, std::ios::binary);
    check(file.good(), std::string(path) + " cannot be read");
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The values of one tensor on the device, freed with the object.
class Buffer {
public:
    explicit Buffer(std::size_t bytes) { check(cudaMalloc(&data_, bytes)); }
    ~Buffer() { cudaFree(data_); }
    Buffer(Buffer const&) = delete;
    Buffer& operator=(Buffer const&) = delete;
    void* data() const { return data_; }

private:
    void* data_{nullptr};
};

std::size_t values_of(nvinfer1::Dims const& shape) {
    return std::accumulate(shape.d, shape.d + shape.nbDims, std::size_t{1},
                           [](std::size_t product, std::int64_t size) { return product * size; });
}

// The only tensor of a kind; a plan with several outputs needs a program of its own.
std::string tensor_of(nvinfer1::ICudaEngine const& engine, nvinfer1::TensorIOMode mode) {
    std::vector<std::string> found;
    for (std::int32_t index = 0; index < engine.getNbIOTensors(); ++index) {
        char const* name = engine.getIOTensorName(index);
        if (engine.getTensorIOMode(name) == mode) {
            found.emplace_back(name);
        }
    }
    check(found.size() == 1, "the plan has not one input and one output");
    check(engine.getTensorDataType(found[0].c_str()) == nvinfer1::DataType::kFLOAT, found[0] + " is not float32");
    return found[0];
}

std::vector<float> scores_of(std::vector<char> const& plan, std::vector<char> const& pixels) {
    Logger logger;
    std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    check(runtime != nullptr, "TensorRT does not start");
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    check(engine != nullptr, "the plan does not fit this TensorRT or this GPU");
    std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
    check(context != nullptr, "the plan cannot be run");

    std::string const input = tensor_of(*engine, nvinfer1::TensorIOMode::kINPUT);
    std::string const output = tensor_of(*engine, nvinfer1::TensorIOMode::kOUTPUT);
    nvinfer1::Dims shape = engine->getTensorShape(input.c_str());
    shape.d[0] = 1;
    check(context->setInputShape(input.c_str(), shape), "the plan takes no batch of one");
    check(pixels.size() == values_of(shape) * sizeof(float), "the pixels are not of the plan's size");
    std::vector<float> scores(values_of(context->getTensorShape(output.c_str())));

    Buffer taken(pixels.size()), given(scores.size() * sizeof(float));
    check(context->setTensorAddress(input.c_str(), taken.data()), input + " has no place");
    check(context->setTensorAddress(output.c_str(), given.data()), output + " has no place");
    cudaStream_t stream{};
    check(cudaStreamCreate(&stream));
    check(cudaMemcpyAsync(taken.data(), pixels.data(), pixels.size(), cudaMemcpyHostToDevice, stream));
    check(context->enqueueV3(stream), "the plan does not run");
    check(cudaMemcpyAsync(scores.data(), given.data(), scores.size() * sizeof(float), cudaMemcpyDeviceToHost,
                          stream));
    check(cudaStreamSynchronize(stream));
    check(cudaStreamDestroy(stream));
    return scores;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) {
        std::fprintf(stderr, "usage: classify PLAN PIXELS\n");
        return 2;
    }
    try {
        std::vector<float> const logits = scores_of(read(arguments[1]), read(arguments[2]));
        float const largest = *std::max_element(logits.begin(), logits.end());
        double sum = 0;
        for (float logit : logits) {
            sum += std::exp(static_cast<double>(logit) - largest);
        }
        std::vector<int> order(logits.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
        for (std::size_t place = 0; place < std::min<std::size_t>(5, order.size()); ++place) {
            double const score = std::exp(static_cast<double>(logits[order[place]]) - largest) / sum;
            std::printf("%d %.6f\n", order[place], score);
        }
    } catch (std::exception const& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
