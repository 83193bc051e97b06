// .npy and .npz: what NumPy writes is read, what is written NumPy reads, and nothing else is accepted.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "npz_file.h"
#include "thrown.h"

namespace {

using hypertape::NamedArrays;
using hypertape::npy_bytes;
using hypertape::NpyArray;
using hypertape::npz_bytes;
using hypertape::read_npy;
using hypertape::read_npz;

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2)
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

// Written by NumPy 2: numpy.save of [[1, 2.5], [-3, 4]].
const char saved_array[] =
    "934e554d5059010076007b276465736372273a20273c6638272c2027666f727472616e5f6f72646572273a2046616c73652c"
    "20277368617065273a2028322c2032292c207d20202020202020202020202020202020202020202020202020202020202020"
    "2020202020202020202020202020202020202020202020202020200a000000000000f03f0000000000000440000000000000"
    "08c00000000000001040";
// numpy.savez of a = [0., 1., 2.] and n = [[7]].
const char saved_archive[] =
    "504b03042d0000000000000021002421e12bffffffffffffffff05001400612e6e7079010010009800000000000000980000"
    "0000000000934e554d5059010076007b276465736372273a20273c6638272c2027666f727472616e5f6f72646572273a2046"
    "616c73652c20277368617065273a2028332c292c207d20202020202020202020202020202020202020202020202020202020"
    "20202020202020202020202020202020202020202020202020202020202020200a0000000000000000000000000000f03f00"
    "00000000000040504b03042d00000000000000210089a36b63ffffffffffffffff050014006e2e6e70790100100088000000"
    "000000008800000000000000934e554d5059010076007b276465736372273a20273c6938272c2027666f727472616e5f6f72"
    "646572273a2046616c73652c20277368617065273a2028312c2031292c207d20202020202020202020202020202020202020"
    "2020202020202020202020202020202020202020202020202020202020202020202020202020200a0700000000000000504b"
    "01022d032d0000000000000021002421e12b9800000098000000050000000000000000000000800100000000612e6e707950"
    "4b01022d032d00000000000000210089a36b6388000000880000000500000000000000000000008001cf0000006e2e6e7079"
    "504b05060000000002000200660000008e0100000000";
// numpy.savez_compressed of a = [0., 1., 2.].
const char compressed_archive[] =
    "504b03042d0000000800000021002421e12bffffffffffffffff05001400612e6e70790100100098000000000000004c0000"
    "00000000009bec17ea1b10c9c850c650ad9e925a9c5ca46ea5a06e9366a1aea3a09e965f54529498179f5f94920a12774bcc"
    "294e058a17672416a402f91ac63a9a3a0ab50a14002e0614f0c11eca700000504b01022d032d0000000800000021002421e1"
    "2b4c00000098000000050000000000000000000000800100000000612e6e7079504b05060000000001000100330000008300"
    "00000000";
// numpy.save of a 2x2 array in Fortran's order.
const char fortran_array[] =
    "934e554d5059010076007b276465736372273a20273c6638272c2027666f727472616e5f6f72646572273a20547275652c20"
    "277368617065273a2028322c2032292c207d2020202020202020202020202020202020202020202020202020202020202020"
    "2020202020202020202020202020202020202020202020202020200a00000000000000000000000000000000000000000000"
    "00000000000000000000";

std::string header(const std::string& text, const std::string& data = "") {
  const auto size = static_cast<char>(text.size());
  return std::string("\x93NUMPY\1\0", 8) + size + '\0' + text + data;
}

std::string refusal_of(const std::string& bytes) {
  return thrown([&] { (void)read_npy(bytes, "x"); });
}

template <class T>
void check_round_trip(const std::vector<std::int64_t>& shape, const std::vector<T>& values) {
  const NpyArray back = read_npy(npy_bytes({shape, values}), "x");
  CHECK(back.shape == shape);
  REQUIRE(std::holds_alternative<std::vector<T>>(back.values));
  const auto& read = std::get<std::vector<T>>(back.values);
  REQUIRE(read.size() == values.size());
  CHECK(std::equal(read.begin(), read.end(), values.begin(), [](T a, T b) {
    return std::memcmp(&a, &b, sizeof a) == 0;  // also NaN and -0
  }));
}

}  // namespace

TEST_CASE("an array is written as NumPy writes it") {
  CHECK(npy_bytes({{2, 2}, std::vector<double>{1.0, 2.5, -3.0, 4.0}}) == from_hex(saved_array));
}

TEST_CASE("arrays and archives of NumPy are read") {
  const NpyArray array = read_npy(from_hex(saved_array), "x");
  CHECK(array.shape == std::vector<std::int64_t>{2, 2});
  CHECK(std::get<std::vector<double>>(array.values) == std::vector<double>{1.0, 2.5, -3.0, 4.0});
  const NamedArrays arrays = read_npz(from_hex(saved_archive), "x");
  REQUIRE(arrays.size() == 2);
  CHECK(arrays[0].first == "a");
  CHECK(std::get<std::vector<double>>(arrays[0].second.values) == std::vector<double>{0.0, 1.0, 2.0});
  CHECK(arrays[1].first == "n");
  CHECK(arrays[1].second.shape == std::vector<std::int64_t>{1, 1});
  CHECK(std::get<std::vector<std::int64_t>>(arrays[1].second.values) == std::vector<std::int64_t>{7});
}

TEST_CASE("every type and shape comes back with the same bits") {
  check_round_trip<double>({5}, {0.1, -0.0, std::nan("7"), std::numeric_limits<double>::infinity(), 5e-324});
  check_round_trip<double>({}, {3.0});
  check_round_trip<double>({0}, {});
  check_round_trip<double>({3, 0, 2}, {});
  check_round_trip<double>({1, 2, 1, 3}, {1, 2, 3, 4, 5, 6});
  check_round_trip<float>({2}, {0.1F, -0.0F});
  check_round_trip<std::int64_t>({2}, {std::numeric_limits<std::int64_t>::min(), -1});
  check_round_trip<std::uint8_t>({3}, {0, 255, 10});
}

TEST_CASE("an archive has the same bytes whenever it is written, and comes back in order") {
  const NamedArrays arrays = {{"second", {{2}, std::vector<double>{1.0, 2.0}}},
                              {"a name: with / signs", {{1}, std::vector<std::uint8_t>{9}}},
                              {"empty", {{0}, std::vector<double>{}}}};
  const std::string bytes = npz_bytes(arrays);
  CHECK(bytes == npz_bytes(arrays));
  const NamedArrays back = read_npz(bytes, "x");
  REQUIRE(back.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(back[i].first == arrays[i].first);
    CHECK(back[i].second.shape == arrays[i].second.shape);
    CHECK(back[i].second.values == arrays[i].second.values);
  }
}

TEST_CASE("shapes and names that do not fit are not written") {
  expect_text(thrown([] { (void)npy_bytes({{3}, std::vector<double>{1.0}}); }), "[write npy]");
  expect_text(thrown([] { (void)npy_bytes({{-1}, std::vector<double>{}}); }), "[write npy]");
  const NpyArray one{{}, std::vector<double>{1.0}};
  expect_text(thrown([&] { (void)npz_bytes({{"a", one}, {"a", one}}); }), "two arrays are called 'a'");
}

TEST_CASE("an array file that is not one is refused with the reason") {
  expect_text(refusal_of(""), "[read npy] x: not a .npy file");
  expect_text(refusal_of("hello, world"), "not a .npy file");
  expect_text(refusal_of(std::string("\x93NUMPY\4\0\0\0", 10)), "version 4");
  expect_text(refusal_of(from_hex(fortran_array)), "Fortran's order");
  const std::string eight(8, '\0');
  const auto dictionary = [](const std::string& descr, const std::string& shape) {
    return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + "}";
  };
  CHECK(refusal_of(header(dictionary("<f8", "(1,)"), eight)) == "nothing thrown");
  CHECK(refusal_of(header("{\"shape\":(),\"descr\":\"<f8\",\"fortran_order\":True}", eight)) ==
        "nothing thrown");
  expect_text(refusal_of(header(dictionary(">f8", "(1,)"), eight)), "elements are '>f8'");
  expect_text(refusal_of(header(dictionary("|O", "(1,)"), eight)), "elements are '|O'");
  expect_text(refusal_of(header(dictionary("<f8", "(2,)"), eight)), "other than the 8 bytes");
  expect_text(refusal_of(header(dictionary("<f8", "()"), eight + eight)), "other than the 16 bytes");
  expect_text(refusal_of(header(dictionary("<f8", "(1,)"), "1234567")), "other than the 7 bytes");
  // 2^62 * 2^62 elements, which would be 0 in 64 bits.
  expect_text(refusal_of(header(dictionary("<f8", "(4611686018427387904, 4611686018427387904)"))),
              "other than");
  expect_text(refusal_of(header(dictionary("<f8", "(99999999999999999999,)"), eight)), "no extent");
  expect_text(refusal_of(header(dictionary("<f8", "(-1,)"), eight)), "no extent");
  expect_text(refusal_of(header(dictionary("<f8", "(1 1)"), eight)), "malformed");
  expect_text(refusal_of(header(dictionary("<f8", "(1,)") + "x", eight)), "text after");
  expect_text(refusal_of(header("{'descr': '<f8', 'descr': '<f8'}", eight)), "repeated key");
  expect_text(refusal_of(header("{'descr': '<f8', 'shape': (1,)}", eight)),
              "no descr, fortran_order or shape");
  expect_text(refusal_of(header("{'descr': <f8}", eight)), "no quoted text");
  expect_text(refusal_of(header("{'descr", eight)), "without end");
  expect_text(refusal_of(header("", eight)), "malformed");
}

TEST_CASE("an array file cut short anywhere is refused") {
  const std::string whole = from_hex(saved_array);
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK(contains(refusal_of(whole.substr(0, size)), "[read npy] x: "));
}

TEST_CASE("an archive that is not one, or whose entries are not plain arrays, is refused") {
  const auto refusal = [](const std::string& bytes) { return thrown([&] { (void)read_npz(bytes, "x"); }); };
  CHECK(refusal("PK but no archive") ==
        "[read npz] x: not a zip archive that can be read: it has no directory, as if cut short or of "
        "another format");
  std::string damaged = from_hex(saved_archive);
  damaged[damaged.find("NUMPY") + 140] ^= 1;
  CHECK(refusal(damaged) == "[read npz] x/a: its checksum does not fit its content: it is damaged");
  expect_text(refusal(""), "[read npz] x: not a zip archive");
  expect_text(refusal(std::string(1000, 'P')), "not a zip archive");
  expect_text(refusal(from_hex(compressed_archive)), "compressed or encrypted");
  std::string other = from_hex(saved_archive);
  for (std::size_t at = other.find("a.npy"); at != other.npos; at = other.find("a.npy", at))
    other[at + 4] = 't';
  expect_text(refusal(other), "is no .npy file");
  std::string twice = from_hex(saved_archive);
  for (std::size_t at = twice.find("n.npy"); at != twice.npos; at = twice.find("n.npy", at)) twice[at] = 'a';
  CHECK(refusal(twice).starts_with("[read npz] x: "));
  const std::string whole = from_hex(saved_archive);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string message = refusal(whole.substr(0, size));
    CHECK_MESSAGE(message.starts_with("[read np"), size << ": " << message);
  }
}

TEST_CASE("a changed byte is found, or changes no element") {
  const std::string whole = from_hex(saved_archive);
  const NamedArrays original = read_npz(whole, "x");
  std::size_t found = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int change : {0xff, 0x01, 0x80}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ change);
      try {
        const NamedArrays arrays = read_npz(changed, "x");
        REQUIRE(arrays.size() == original.size());
        for (std::size_t i = 0; i < arrays.size(); ++i)
          CHECK_MESSAGE(arrays[i].second.values == original[i].second.values, "byte " << at);
      } catch (const std::exception& error) {
        CHECK_MESSAGE(contains(error.what(), "[read np"), error.what());
        ++found;
      }
    }
  }
  // Every element and every header byte is under a checksum; the rest is the archive's own bookkeeping.
  CHECK(found > whole.size());
}
