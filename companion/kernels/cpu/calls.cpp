// A call's way to the CPU kernels and back, without Python.
//
// For a small batch the kernels take microseconds, and Python's way to them ten times as long. This
// is the same way, for the calls that need nothing special: arguments that are obviously fine are
// put into a job, the job is run, and autograd gets a node whose backward pass does the same. Every
// other call is answered with None and takes Python's way, which also knows what to say about it.
//
// Read from the end: `batch_norm`, then `BatchNorm`, `normalize`, `differentiate`. The struct `Job`,
// with its `Plan`, and the kinds of numbers are in job.h, which `calls.py` writes.

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/hash.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "job.h"

namespace {

namespace py = pybind11;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Kernel = void (*)(void*);
using Parallel = void (*)(Kernel, void*, unsigned, unsigned);

// What `calls.py` gives at `connect`; never freed, since calls may come as long as Python runs.
struct Python {
  py::object plan;           // (shape, stride, dtype, tensors, threads) -> stride, plan, bytes; None
  py::object kernel;         // (backward, dtype) -> address
  py::object differentiate;  // gradients that can be differentiated, or are asked for by a transform
  Parallel parallel;         // OpenMP's, see `runtime.Threads`
  int64_t thread_number;     // OpenMP's function's address
};
Python* python = nullptr;

// What the passes over tensors of one shape, layout and type have in common.
struct Pass {
  std::vector<int64_t> stride;
  Plan plan;
  int64_t scratch;  // bytes that the threads work in
  int64_t memory;   // those, the sums that the threads share, and how many chunks they have taken
};

// What does not depend on the tensors.
struct Options {
  double eps;
  double momentum;  // NaN: the average of all batches
  bool training;
  bool relu;
  bool skip_nonfinite;
};

// What a training pass moves; undefined tensors for what is not there, or is not to move.
struct Running {
  Tensor mean, var, count;
};

// See `formats.FORMATS`.
int64_t kind_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return FLOAT32;
    case at::kDouble: return FLOAT64;
    case at::kHalf: return FLOAT16;
    case at::kBFloat16: return BFLOAT16;
    default: return ABSENT;
  }
}

int64_t kind_of(const Tensor& tensor) {
  return tensor.defined() ? kind_of(tensor.scalar_type()) : ABSENT;
}

int64_t address(const Tensor& tensor) {
  return tensor.defined() ? reinterpret_cast<int64_t>(tensor.const_data_ptr()) : 0;
}

bool is_half(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

// Whether no transform, tracer or mode is at work, which would have to see the operations.
bool undisturbed() {
  return !at::impl::torch_function_mode_enabled() &&
      !c10::impl::TorchDispatchModeTLS::any_modes_set() &&
      !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) &&
      !torch::autograd::ForwardADLevel::try_get_by_idx(0) && !torch::jit::tracer::isTracing();
}

// Whether a tensor is what its memory says.
bool plain(const Tensor& tensor) {
  return tensor.is_cpu() && tensor.layout() == at::kStrided && tensor.has_storage() &&
      !tensor.is_neg() && !tensor.key_set().has(c10::DispatchKey::Python);
}

// Whether a tensor, if there is one, holds a value per channel of `x`, in a type that goes with it.
bool per_channel(const Tensor& tensor, const Tensor& x) {
  if (!tensor.defined()) return true;
  const auto type = tensor.scalar_type();
  return plain(tensor) && tensor.dim() == 1 && tensor.size(0) == x.size(1) &&
      tensor.is_contiguous() &&
      (type == x.scalar_type() || (is_half(x.scalar_type()) && type == at::kFloat));
}

// Whether a pass may read the statistics and, in training, move the state where it lies.
bool usable(const Running& running, bool training) {
  const auto& [mean, var, count] = running;
  if (mean.defined() != var.defined() || mean.requires_grad() || var.requires_grad()) return false;
  if (!training) return mean.defined();
  for (const auto* tensor : {&mean, &var, &count}) {
    if (tensor->defined() && tensor->is_inference()) return false;
  }
  return !count.defined() || (plain(count) && count.dim() == 0 && count.scalar_type() == at::kLong);
}

// What a pass depends on: type, tensors swept twice, threads, sizes and strides.
constexpr int64_t MOST_AXES = 6;
using Key = std::array<int64_t, 4 + 2 * MOST_AXES>;

struct HashKey {
  size_t operator()(const Key& key) const {
    size_t seed = 0;
    for (const int64_t value : key) seed = c10::hash_combine(seed, static_cast<size_t>(value));
    return seed;
  }
};

// Ask Python how to pass over `x`; nothing if the kernels do not know its layout.
std::optional<Pass> ask_for_pass(const Tensor& x, int tensors, int threads) {
  const py::gil_scoped_acquire gil;
  py::tuple shape(x.dim()), stride(x.dim());
  for (int64_t i = 0; i < x.dim(); ++i) {
    shape[i] = py::int_(x.size(i));
    stride[i] = py::int_(x.stride(i));
  }
  const py::object given =
      python->plan(shape, stride, static_cast<int>(kind_of(x)), tensors, threads);
  if (given.is_none()) return std::nullopt;
  const auto answer = given.cast<py::tuple>();
  Pass pass;
  for (const auto& value : answer[0].cast<py::tuple>()) pass.stride.push_back(value.cast<int64_t>());
  const auto bytes = answer[1].cast<std::string>();
  TORCH_INTERNAL_ASSERT(bytes.size() == sizeof(Plan));
  std::memcpy(&pass.plan, bytes.data(), sizeof(Plan));
  pass.scratch = answer[2].cast<int64_t>();
  pass.memory = answer[3].cast<int64_t>();
  return pass;
}

// How to pass over `x`, where `tensors` of its size are swept twice. What Python answered is kept:
// models have few shapes. Null if the kernels do not know the layout.
const Pass* pass_over(const Tensor& x, int tensors) {
  static std::mutex mutex;
  static auto* passes = new std::unordered_map<Key, std::optional<Pass>, HashKey>();
  const int threads = at::get_num_threads();
  Key key{kind_of(x), tensors, threads, x.dim()};
  std::copy_n(x.sizes().begin(), x.dim(), key.begin() + 4);
  std::copy_n(x.strides().begin(), x.dim(), key.begin() + 4 + MOST_AXES);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto known = passes->find(key);
    if (known != passes->end()) return known->second ? &*known->second : nullptr;
  }
  // Without the lock: Python may let another thread run.
  auto pass = ask_for_pass(x, tensors, threads);
  const std::lock_guard<std::mutex> lock(mutex);
  const auto& stored = passes->emplace(key, std::move(pass)).first->second;
  return stored ? &*stored : nullptr;
}

Kernel kernel_for(bool backward, const Tensor& x) {
  static std::atomic<Kernel> kernels[2][5];
  auto& kernel = kernels[backward][kind_of(x)];
  if (kernel == nullptr) {
    const py::gil_scoped_acquire gil;
    const py::object location = python->kernel(backward, static_cast<int>(kind_of(x)));
    kernel = reinterpret_cast<Kernel>(location.cast<int64_t>());
  }
  return kernel;
}

// A thread's own memory, kept from call to call: `size` bytes that the next call overwrites.
int64_t memory_of(int64_t size) {
  struct Free {
    void operator()(void* memory) const { c10::free_cpu(memory); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local int64_t available = 0;
  if (available < size) {
    memory.reset(c10::alloc_cpu(size));
    available = size;
  }
  return reinterpret_cast<int64_t>(memory.get());
}

Tensor empty(const Pass& pass, const Tensor& x) {
  return at::detail::empty_strided_cpu(x.sizes(), pass.stride, x.scalar_type());
}

Tensor two_per_channel(const Pass& pass) {
  return at::detail::empty_cpu({2, pass.plan.channels}, at::kDouble);
}

// `given` in the layout of `x`.
Tensor like(const Tensor& x, const Tensor& given) {
  if (!given.defined() || given.strides() == x.strides()) return given;
  return at::empty_like(x).copy_(given);
}

// The part of a job that both passes have.
Job job_of(const Pass& pass, const Tensor& x, const Tensor& weight, const Tensor& bias,
           const Options& options) {
  Job job{};
  job.eps = options.eps;
  job.x = address(x);
  job.weight = address(weight);
  job.weight_kind = kind_of(weight);
  job.bias = address(bias);
  job.bias_kind = kind_of(bias);
  const int64_t taken_size = 2 * TAKEN_BYTES * pass.plan.threads;
  job.chunks_taken = memory_of(pass.memory);
  std::memset(reinterpret_cast<void*>(job.chunks_taken), 0, taken_size);
  job.thread_number = python->thread_number;
  job.scratch = job.chunks_taken + taken_size;
  job.partial_sums = job.scratch + pass.scratch;
  job.sums = job.partial_sums + 16 * pass.plan.channels * pass.plan.chunks;
  job.training = options.training;
  job.relu = options.relu;
  job.sweeps = SUMS + OUTPUT;
  job.plan = pass.plan;
  return job;
}

// Normalize with what is, or will be, in the statistics at an address.
void set_statistics(Job& job, int64_t at) {
  job.statistics = job.mean = at;
  job.var = job.mean + 8 * job.plan.channels;
  job.mean_kind = job.var_kind = FLOAT64;
}

void run(Kernel kernel, Job& job) {
  if (job.plan.threads == 1) {
    kernel(&job);
  } else {
    python->parallel(kernel, &job, static_cast<unsigned>(job.plan.threads), 0);
  }
}

// The forward pass. Returns the output and, where they are to be kept, the statistics. See
// `companion.kernels.interface.Kernels`.
std::pair<Tensor, Tensor> normalize(const Pass& pass, const Tensor& x, const Tensor& weight,
                                    const Tensor& bias, const Tensor& residual,
                                    const Running& running, const Options& options, bool keep) {
  const Tensor addend = like(x, residual);
  Tensor y = empty(pass, x), statistics = keep ? two_per_channel(pass) : Tensor();
  Job job = job_of(pass, x, weight, bias, options);
  // This pass has no other use for the place of the gradients' sums.
  set_statistics(job, keep ? address(statistics) : job.sums);
  job.y = address(y);
  job.residual = address(addend);
  if (!options.training) {
    job.mean = address(running.mean);
    job.mean_kind = kind_of(running.mean);
    job.var = address(running.var);
    job.var_kind = kind_of(running.var);
  } else if (running.mean.defined() || running.count.defined()) {
    job.moves = 1;
    job.momentum = options.momentum;
    job.skip_nonfinite = options.skip_nonfinite;
    job.running_mean = address(running.mean);
    job.running_mean_kind = kind_of(running.mean);
    job.running_var = address(running.var);
    job.running_var_kind = kind_of(running.var);
    job.batches = address(running.count);
  }
  run(kernel_for(false, x), job);
  if (job.moves) {
    for (const auto* state : {&running.mean, &running.var, &running.count}) {
      if (state->defined()) state->unsafeGetTensorImpl()->bump_version();
    }
  }
  return {y, statistics};
}

// The backward pass: the gradients of input, weight, bias and residual.
variable_list differentiate(const Tensor& grad_y, const Tensor& x, const Tensor& y,
                            const Tensor& statistics, const Tensor& weight, const Tensor& bias,
                            bool residual, const Options& options, const Pass& pass) {
  const Tensor g = like(x, grad_y), output = like(x, y);
  variable_list grads(4);
  grads[0] = empty(pass, x);
  if (weight.defined()) grads[1] = at::detail::empty_cpu(weight.sizes(), weight.scalar_type());
  if (bias.defined()) grads[2] = at::detail::empty_cpu(bias.sizes(), bias.scalar_type());
  if (residual) grads[3] = empty(pass, x);
  Job job = job_of(pass, x, weight, bias, options);
  set_statistics(job, address(statistics));
  job.y = address(output);
  job.grad_y = address(g);
  job.grad_x = address(grads[0]);
  job.grad_residual = address(grads[3]);
  job.grad_weight = address(grads[1]);
  job.grad_weight_kind = kind_of(grads[1]);
  job.grad_bias = address(grads[2]);
  job.grad_bias_kind = kind_of(grads[2]);
  run(kernel_for(true, x), job);
  return grads;
}

// The backward pass made of PyTorch's operations, see `differentiation.differentiate_again`.
variable_list differentiate_in_python(const Tensor& grad_y, const variable_list& saved,
                                      const Options& options, const std::vector<bool>& needs) {
  const py::gil_scoped_acquire gil;
  const auto wrap = [](const Tensor& tensor) {
    return py::reinterpret_steal<py::object>(THPVariable_Wrap(tensor));
  };
  py::tuple wanted(needs.size());
  for (size_t i = 0; i < needs.size(); ++i) wanted[i] = py::bool_(needs[i]);
  const py::object answer = python->differentiate(
      wrap(grad_y), wrap(saved[0]), wrap(saved[1]), wrap(saved[2]), wrap(saved[3]), wrap(saved[4]),
      options.eps, options.relu, options.training, wanted);
  variable_list grads;
  for (const auto& value : answer.cast<py::tuple>()) {
    grads.push_back(value.is_none() ? Tensor() : THPVariable_Unpack(value.ptr()));
  }
  return grads;
}

// How autograd wants to be told that there may be no tensor.
using OptionalTensor = std::optional<Tensor>;

OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

// Normalize, for autograd.
struct BatchNorm : torch::autograd::Function<BatchNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& weight_given,
                        const OptionalTensor& bias_given, const OptionalTensor& residual_given,
                        const Pass* pass, const Running* running, const Options* options) {
    const Tensor weight = weight_given.value_or(Tensor()), bias = bias_given.value_or(Tensor()),
                 residual = residual_given.value_or(Tensor());
    const auto [y, statistics] =
        normalize(*pass, x, weight, bias, residual, *running, *options, true);
    const bool output_needed = options->relu && residual.defined();
    ctx->save_for_backward({x, weight, bias, residual, statistics, output_needed ? y : Tensor()});
    ctx->saved_data["eps"] = options->eps;
    ctx->saved_data["flags"] = (options->training ? 1 : 0) + (options->relu ? 2 : 0);
    return y;
  }

  // Whether what was saved can be read as it was: hooks may have put other tensors in its place.
  static bool as_saved(const variable_list& saved) {
    const Tensor &x = saved[0], &statistics = saved[4], &y = saved[5];
    return plain(x) && kind_of(x) != 0 && per_channel(saved[1], x) && per_channel(saved[2], x) &&
        plain(statistics) && statistics.is_contiguous() && (!y.defined() || plain(y));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto flags = ctx->saved_data["flags"].toInt();
    Options options{};
    options.eps = ctx->saved_data["eps"].toDouble();
    options.training = (flags & 1) != 0;
    options.relu = (flags & 2) != 0;
    const Tensor& grad_y = grads[0];
    const Pass* pass = as_saved(saved) ? pass_over(saved[0], 2) : nullptr;
    variable_list inputs_grads;
    if (at::GradMode::is_enabled() || pass == nullptr || !plain(grad_y) || !undisturbed()) {
      std::vector<bool> needs;
      // Autograd counts the inputs that are there.
      for (size_t i = 0, present = 0; i < 4; ++i) {
        needs.push_back(saved[i].defined() && ctx->needs_input_grad(present));
        present += saved[i].defined();
      }
      inputs_grads = differentiate_in_python(grad_y, saved, options, needs);
    } else {
      inputs_grads = differentiate(grad_y, saved[0], saved[5], saved[4], saved[1], saved[2],
                                   saved[3].defined(), options, *pass);
    }
    // What is no tensor has no gradient.
    inputs_grads.resize(7);
    return inputs_grads;
  }
};

bool needs_gradient(std::initializer_list<const Tensor*> tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const auto* tensor : tensors) {
    if (tensor->defined() && tensor->requires_grad()) return true;
  }
  return false;
}

// Whether an argument is a tensor, of no subclass, or None, which leaves `into` undefined.
bool read(PyObject* argument, Tensor& into) {
  if (argument == Py_None) return true;
  if (!THPVariable_CheckExact(argument)) return false;
  into = THPVariable_Unpack(argument);
  return true;
}

bool read(PyObject* argument, bool& into) {
  into = argument == Py_True;
  return into || argument == Py_False;
}

bool read(PyObject* argument, double& into) {
  if (!PyFloat_CheckExact(argument)) return false;
  into = PyFloat_AS_DOUBLE(argument);
  return true;
}

// (input, running_mean, running_var, weight, bias, training, momentum, eps, num_batches_tracked,
// skip_nonfinite, residual, relu), as for `companion.functional.batch_norm_act`: the output, or
// None where Python has to look at the call.
PyObject* batch_norm(PyObject* /*module*/, PyObject* const* given, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  Tensor x, weight, bias, residual;
  Running running;
  Options options{};
  options.momentum = std::numeric_limits<double>::quiet_NaN();
  const bool read_all = count == 12 && python != nullptr && read(given[0], x) && x.defined() &&
      read(given[1], running.mean) && read(given[2], running.var) && read(given[3], weight) &&
      read(given[4], bias) && read(given[5], options.training) &&
      (given[6] == Py_None || read(given[6], options.momentum)) && read(given[7], options.eps) &&
      read(given[8], running.count) && read(given[9], options.skip_nonfinite) &&
      read(given[10], residual) && read(given[11], options.relu);
  if (!read_all || !undisturbed() || !plain(x) || kind_of(x) == 0 || x.dim() < 2 ||
      x.dim() > MOST_AXES || x.numel() == 0 || (options.training && x.numel() == x.size(1)) ||
      !(options.eps > 0.0)) {
    Py_RETURN_NONE;
  }
  const bool fits = usable(running, options.training) && per_channel(running.mean, x) &&
      per_channel(running.var, x) && per_channel(weight, x) && per_channel(bias, x) &&
      (given[6] != Py_None || running.count.defined()) &&
      (!residual.defined() ||
       (plain(residual) && residual.scalar_type() == x.scalar_type() &&
        residual.sizes() == x.sizes()));
  if (!fits) Py_RETURN_NONE;
  const bool differentiates = needs_gradient({&x, &weight, &bias, &residual});
  for (const auto* tensor : {&x, &weight, &bias}) {
    // Autograd cannot save those of inference mode, which is to be said before anything moves.
    if (differentiates && tensor->defined() && tensor->is_inference()) Py_RETURN_NONE;
  }
  const Pass* pass = pass_over(x, options.training ? 1 : 0);
  if (pass == nullptr) Py_RETURN_NONE;
  if (options.training && torch::autograd::get_current_graph_task_id() != -1) {
    // A batch that is normalized again for its backward pass has been counted.
    running = Running();
  }
  kernel_for(false, x);
  Tensor y;
  {
    const py::gil_scoped_release others_may_run;
    if (differentiates) {
      y = BatchNorm::apply(x, optional(weight), optional(bias), optional(residual), pass, &running,
                           &options);
    } else {
      y = normalize(*pass, x, weight, bias, residual, running, options, false).first;
    }
  }
  return THPVariable_Wrap(y);
  END_HANDLE_TH_ERRORS
}

PyMethodDef methods[] = {
    {"batch_norm", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(batch_norm)),
     METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  PyModule_AddFunctions(module.ptr(), methods);
  module.def("connect", [](py::object plan, py::object kernel, py::object differentiate,
                           int64_t parallel, int64_t thread_number) {
    python = new Python{std::move(plan), std::move(kernel), std::move(differentiate),
                        reinterpret_cast<Parallel>(parallel), thread_number};
  });
}
