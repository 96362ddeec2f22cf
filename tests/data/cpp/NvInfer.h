// A stand-in for TensorRT's NvInfer.h: the members that examples/cpp/classify.cpp uses, with the signatures that
// NvInferRuntimeBase.h and NvInferRuntime.h have in TensorRT 10 and 11 (also as pure virtuals in NvInferImpl.h).
// Its engine takes any plan that begins with "plan", an input (-1, 3, 1, 2), and gives the six values as scores.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <string>

namespace nvinfer1 {

class Dims64 {
public:
    static constexpr std::int32_t MAX_DIMS{8};
    std::int32_t nbDims;
    std::int64_t d[MAX_DIMS];
};
using Dims = Dims64;

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class ExecutionContextAllocationStrategy : std::int32_t { kSTATIC = 0 };
using AsciiChar = char;

class ILogger {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, AsciiChar const* msg) noexcept = 0;
    virtual ~ILogger() = default;
};

class IExecutionContext {
public:
    virtual ~IExecutionContext() noexcept = default;
    bool setInputShape(char const*, Dims const& dims) noexcept { return dims.d[0] == 1; }
    Dims getTensorShape(char const*) const noexcept { return {2, {1, 6}}; }
    bool setTensorAddress(char const* tensorName, void* data) noexcept {
        places_[tensorName] = data;
        return true;
    }
    bool enqueueV3(cudaStream_t) noexcept {
        std::memcpy(places_.at("logits"), places_.at("images"), 6 * sizeof(float));
        return true;
    }

private:
    std::map<std::string, void*> places_;
};

class ICudaEngine {
public:
    virtual ~ICudaEngine() noexcept = default;
    std::int32_t getNbIOTensors() const noexcept { return 2; }
    char const* getIOTensorName(std::int32_t index) const noexcept { return index == 0 ? "images" : "logits"; }
    TensorIOMode getTensorIOMode(char const* tensorName) const noexcept {
        return std::string(tensorName) == "images" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    DataType getTensorDataType(char const*) const noexcept { return DataType::kFLOAT; }
    Dims getTensorShape(char const*) const noexcept { return {4, {-1, 3, 1, 2}}; }
    IExecutionContext* createExecutionContext(
        ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy::kSTATIC) noexcept {
        return new IExecutionContext;
    }
};

class IRuntime {
public:
    virtual ~IRuntime() noexcept = default;
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept {
        bool const fits = size >= 4 && std::memcmp(blob, "plan", 4) == 0;
        if (!fits) {
            logger_.log(ILogger::Severity::kERROR, "no plan");
        }
        return fits ? new ICudaEngine : nullptr;
    }
    explicit IRuntime(ILogger& logger) : logger_(logger) {}

private:
    ILogger& logger_;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept { return new IRuntime(logger); }

}  // namespace nvinfer1
