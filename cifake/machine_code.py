"""Functions in the machine code of the processor that runs them.

They are written instruction by instruction in LLVM's intermediate language, compiled when they are
first asked for, and called with addresses. Nothing is checked at a call: whoever makes one passes
memory of the right size.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir

INDEX = ir.IntType(64)
BYTE = ir.IntType(8)
MOST_BITS = 64
"""Bits of an index."""

_POINTER = ir.PointerType()

_NUMBERS = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType(), torch.uint8: BYTE}

_COUNTER = itertools.count()
"""Makes names of functions unique."""

_VECTOR_BYTES = {"AVX512": 64, "AVX2": 32}
"""By what torch calls the processor; others have registers of 16 bytes."""


def lanes(dtype: torch.dtype) -> int:
    """Numbers of a type in one register."""
    return _VECTOR_BYTES.get(torch.backends.cpu.get_cpu_capability(), 16) // dtype.itemsize


class Code:
    """The body of a function, of which each method writes the next instructions.

    Its arguments are addresses, then counts. Numbers have one type; places are counted in numbers,
    or in bytes where a method says so.
    """

    def __init__(
        self, name: str, addresses: Sequence[str], counts: Sequence[str], dtype: torch.dtype
    ) -> None:
        self.number = _NUMBERS[dtype]
        self.number_bytes = dtype.itemsize
        name = f"{name}_{next(_COUNTER)}"
        self.module = ir.Module(name)
        types = [*[_POINTER] * len(addresses), *[INDEX] * len(counts)]
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), types), name)
        self.arguments = dict(zip([*addresses, *counts], self.function.args, strict=True))
        for address in addresses:
            self.arguments[address].add_attribute("noalias")
        self.build = ir.IRBuilder(self.function.append_basic_block())

    # Whole numbers.

    def index(self, value: int) -> ir.Constant:
        """A whole number that is known beforehand."""
        return ir.Constant(INDEX, value)

    def place(self, *steps: tuple[ir.Value, int]) -> ir.Value:
        """The sum of some indices, each times its stride."""
        found = self.index(0)
        for index, stride in steps:
            found = self.build.add(found, self.build.mul(index, self.index(stride)))
        return found

    def least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The smaller of two indices."""
        return self.build.select(self.build.icmp_unsigned("<", a, b), a, b)

    @contextmanager
    def loop(self, count: ir.Value) -> Iterator[ir.Value]:
        """What is written inside is done for each index below a count, in order."""
        build = self.build
        counter = self.variable(self.index(0))
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        build.branch(head)
        build.position_at_end(head)
        build.cbranch(build.icmp_unsigned("<", self.value(counter), count), body, after)
        build.position_at_end(body)
        index = self.value(counter)
        yield index
        build.store(build.add(index, self.index(1)), counter)
        build.branch(head)
        build.position_at_end(after)

    @contextmanager
    def each_bit(self, bits: ir.Value) -> Iterator[ir.Value]:
        """What is written inside is done for each bit that is set, by its number, from the lowest.

        It guesses wrong once at most, at the last, where a question a bit would with many of them.
        """
        build = self.build
        left = self.variable(bits)
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        build.branch(head)
        build.position_at_end(head)
        some = build.icmp_unsigned("!=", self.value(left), self.index(0))
        build.cbranch(some, body, after)
        build.position_at_end(body)
        remaining = self.value(left)
        yield build.cttz(remaining, ir.Constant(ir.IntType(1), 1))
        lower = build.sub(remaining, self.index(1))
        build.store(build.and_(remaining, lower), left)
        build.branch(head)
        build.position_at_end(after)

    # Variables.

    def variable(self, initial: ir.Value) -> ir.Value:
        """A place for one value, which the compiler keeps in a register."""
        with self.build.goto_entry_block():
            found = self.build.alloca(initial.type)
        self.build.store(initial, found)
        return found

    def value(self, variable: ir.Value) -> ir.Value:
        """What a variable holds."""
        return self.build.load(variable, typ=variable.allocated_type)

    # Numbers and vectors of them.

    def vector(self, width: int) -> ir.VectorType:
        """The type of so many numbers."""
        return ir.VectorType(self.number, width)

    def constant(self, value: float, width: int) -> ir.Constant:
        """The same number in every lane."""
        return ir.Constant(self.vector(width), [value] * width)

    def splat(self, number: ir.Value, width: int) -> ir.Value:
        """A number in every lane."""
        nothing = ir.Constant(self.vector(width), ir.Undefined)
        first = self.build.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        lanes_of = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        return self.build.shuffle_vector(first, nothing, lanes_of)

    def load(self, address: str, place: ir.Value, width: int) -> ir.Value:
        """So many numbers from a place on."""
        pointer = self._at(address, place, self.number)
        return self.build.load(pointer, typ=self.vector(width), align=self.number_bytes)

    def store(self, value: ir.Value, address: str, place: ir.Value) -> None:
        """Write numbers from a place on."""
        pointer = self._at(address, place, self.number)
        self.build.store(value, pointer, align=self.number_bytes)

    def load_number(self, address: str, place: ir.Value) -> ir.Value:
        """One number."""
        return self.build.load(self._at(address, place, self.number), typ=self.number)

    def store_number(self, value: ir.Value, address: str, place: ir.Value) -> None:
        """Write one number."""
        self.build.store(value, self._at(address, place, self.number))

    def load_byte(self, address: str, place: ir.Value) -> ir.Value:
        """One byte, as an index; the place is in bytes."""
        byte = self.build.load(self._at(address, place, BYTE), typ=BYTE)
        return self.build.zext(byte, INDEX)

    def equal_bytes(self, address: str, place: ir.Value, count: int, value: ir.Value) -> ir.Value:
        """Which of up to 64 bytes are an index, as bits of a number; the place is in bytes."""
        bytes_ = ir.VectorType(BYTE, count)
        found = self.build.load(self._at(address, place, BYTE), typ=bytes_, align=1)
        nothing = ir.Constant(bytes_, ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        first = self.build.insert_element(nothing, self.build.trunc(value, BYTE), zero)
        every = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
        wanted = self.build.shuffle_vector(first, nothing, every)
        equal = self.build.icmp_unsigned("==", found, wanted)
        bits = self.build.bitcast(equal, ir.IntType(count))
        return bits if count == MOST_BITS else self.build.zext(bits, INDEX)

    def store_byte(self, value: ir.Value, address: str, place: ir.Value) -> None:
        """Write one byte; the place is in bytes."""
        self.build.store(value, self._at(address, place, BYTE))

    def store_bytes(self, value: ir.Value, address: str, place: ir.Value) -> None:
        """Write a vector of bytes; the place is in bytes."""
        self.build.store(value, self._at(address, place, BYTE), align=1)

    def lane(self, vector: ir.Value, number: int) -> ir.Value:
        """What one lane holds."""
        return self.build.extract_element(vector, ir.Constant(ir.IntType(32), number))

    def first(self, vector: ir.Value, count: int) -> ir.Value:
        """The first lanes of a vector."""
        chosen = ir.Constant(ir.VectorType(ir.IntType(32), count), [*range(count)])
        return self.build.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)

    def every(self, step: int, vector: ir.Value, first: int) -> ir.Value:
        """The lanes first, first + step, … of a vector."""
        places = [*range(first, vector.type.count, step)]
        chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
        return self.build.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)

    def add_product(self, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
        """A · b + total of vectors, in one rounding where the processor can."""
        kind = "f64" if self.number_bytes == 8 else "f32"
        name = f"llvm.fmuladd.v{a.type.count}{kind}"
        if name not in self.module.globals:
            signature = ir.FunctionType(a.type, [a.type] * 3)
            ir.Function(self.module, signature, name)
        return self.build.call(self.module.globals[name], [a, b, total])

    def _at(self, address: str, place: ir.Value, unit: ir.Type) -> ir.Value:
        return self.build.gep(self.arguments[address], [place], source_etype=unit)

    # The end.

    def compiled(self) -> Callable[..., None]:
        """The function; its addresses are given as integers."""
        self.build.ret_void()
        address = _compile(str(self.module), self.function.name)
        types = [
            ctypes.c_void_p if isinstance(argument.type, ir.PointerType) else ctypes.c_int64
            for argument in self.function.args
        ]
        return ctypes.CFUNCTYPE(None, *types)(address)


@functools.cache
def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return _new_machine()


def _new_machine() -> Any:
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )


@functools.cache
def _linker() -> Any:
    """What holds the code of all functions; it takes over the machine that it is given."""
    _machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _new_machine())


def _compile(text: str, name: str) -> int:
    """The address of a function.

    What it was made of is given back to the system at once: with an engine for each function it
    would be a megabyte.
    """
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    with (
        llvm.parse_assembly(text) as module,
        llvm.create_pass_builder(_machine(), options) as passes,
    ):
        module.verify()
        passes.getModulePassManager().run(module, passes)
        _linker().add_object_file(llvm.ObjectFileRef.from_data(_machine().emit_object(module)))
    _linker().finalize_object()
    _give_back()
    return int(_linker().get_function_address(name))


def _give_back() -> None:
    """Let the C library return what is free, where it can be told to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
