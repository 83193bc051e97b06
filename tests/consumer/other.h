// The consumer's second source.
#pragma once

bool other_source();
