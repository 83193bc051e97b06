// Where an infinite or NaN element comes from.
//
//     ht::AnomalyScope watch;                           // for this thread, as long as it lives
//     const ht::Tensor g = ht::grad(loss, w);
//     if (watch.first()) std::cout << watch.first()->text() << '\n';
//     // "the value of log, shape (3), from finite operands (3)"
//
// While a scope is open, every operation's operands and results are read once more, in the forward pass, in
// reverse and along tangents; values and derivatives stay what they are. Without one, operations pay a
// branch.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <hypertape/core/export.h>
#include <hypertape/core/tensor.h>

namespace hypertape {

namespace detail {
class AnomalyRecord;
}

/// An operation that made an infinite or NaN element out of finite ones.
struct Anomaly {
  enum class Kind : std::uint8_t {
    value,     ///< the forward value
    tangent,   ///< its tangent, in forward mode
    gradient,  ///< in reverse: the gradient of an operand
    operand    ///< none: an operand was not finite when it was first seen
  };
  Kind kind = Kind::value;
  std::string operation;  ///< its public name
  std::string made_by;  ///< for tangents and gradients: the operation of the rule that made it, if it had one
  std::string shape;    ///< of the result
  std::string operands;  ///< shapes of what it was made of
  std::string step;      ///< "step 37 of 100" inside a training run, else empty

  /// "the reverse gradient of log, by divide, shape (3), from finite operands (3), (3), at step 37 of 100"
  HYPERTAPE_API std::string text() const;
};

/// Watches the operations of this thread; those that other threads do for them are not seen. Of several open
/// scopes the innermost watches.
class HYPERTAPE_API AnomalyScope {
 public:
  AnomalyScope();
  ~AnomalyScope();
  AnomalyScope(const AnomalyScope&) = delete;
  AnomalyScope& operator=(const AnomalyScope&) = delete;

  /// The first one, which need not matter: an infinity may be meant, behind a mask for instance.
  std::optional<Anomaly> first() const;
  /// The one that the non-finite elements of `result` go back to; the first one if that is not known; absent
  /// if `result` is finite.
  std::optional<Anomaly> origin_of(const Tensor& result) const;

 private:
  std::unique_ptr<detail::AnomalyRecord> record_;
};

}  // namespace hypertape
