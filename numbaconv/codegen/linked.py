"""Compiled functions that only other compiled functions call: typed and lowered once, never machine code of their own.

Numba optimises each function with all that it calls, makes machine code of it, and does both again for every caller that it is
linked into, down to the entry point: half of the time of a first run.  These are handed on as they were lowered, so that only what
has an address, a `NativeFunction` or what Python calls, is optimised and becomes machine code.
"""

from __future__ import annotations

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher


class _LinkedLibrary(JITCodeLibrary):
    """Code to be linked into that of callers, who optimise it."""

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


class _LinkedCompiler(Compiler):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        state = self.state
        state.library = _LinkedLibrary(state.targetctx.codegen(), "linked")
        # neither called from Python nor from C
        state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = state.flags.no_compile = True


class LinkedFunction(CPUDispatcher):
    """A function for compiled callers; `options` are those of `numba.njit`."""

    def __init__(self, function, **options):
        super().__init__(function, targetoptions={"nopython": True, **options}, pipeline_class=_LinkedCompiler)

    def add_overload(self, compiled):
        # callers find what to link by the entry point, whatever it is
        compiled = compiled._replace(entry_point=object())
        self.targetctx.insert_user_function(compiled.entry_point, compiled.fndesc, [compiled.library])
        self.overloads[tuple(compiled.signature.args)] = compiled

    def _compile_for_args(self, *arguments, **named):
        raise TypeError(
            f"{self.py_func.__name__} is called by compiled functions only; Python calls those with entry=True"
        )
