// Everything, for programs that do not mind.
#pragma once

#include <hypertape/autodiff/anomaly.h>
#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/bilevel/joint.h>
#include <hypertape/bilevel/linear.h>
#include <hypertape/bilevel/plan.h>
#include <hypertape/bilevel/problem.h>
#include <hypertape/core/abi.h>
#include <hypertape/core/error.h>
#include <hypertape/core/export.h>
#include <hypertape/core/initialize.h>
#include <hypertape/core/memory.h>
#include <hypertape/core/named_tensors.h>
#include <hypertape/core/parallel.h>
#include <hypertape/core/random.h>
#include <hypertape/core/shape.h>
#include <hypertape/core/tensor.h>
#include <hypertape/core/version.h>
#include <hypertape/core/warning.h>
#include <hypertape/nn/layers.h>
#include <hypertape/optim/step.h>
