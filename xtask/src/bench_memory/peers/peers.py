"""The peers of `cargo xtask bench memory`: ONNX Runtime, numpy, faiss and usearch on the same texts and vectors.

Reads commands, a JSON object a line, and answers each with a line, as the `memory_speed` example of hearth-memory does.
Every library is held to one thread, unless a command says another number. Times are milliseconds.
"""

import json
import logging
import os
import pathlib
import sys
import time

# Before the libraries that read them are loaded.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import bert_graph
import faiss
import numpy as np
import onnx
import onnxruntime
import usearch
import usearch.index
from tokenizers import Tokenizer

WIDTH = 384
NEAREST = 10
# Searches of a graph before they are counted, and the widths that are tried until one is as exact as asked.
BREADTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def times(rounds, work, warm_up=2):
    """How long each call takes."""
    taken = []
    for round_ in range(rounds + warm_up):
        start = time.perf_counter_ns()
        work(round_)
        if round_ >= warm_up:
            taken.append((time.perf_counter_ns() - start) / 1e6)
    return taken


def vectors(path, count=-1):
    """The first vectors of a file of 32-bit floats."""
    floats = np.fromfile(path, dtype=np.float32, count=count * WIDTH if count > 0 else -1)
    return floats.reshape(-1, WIDTH)


def as_bytes(floats):
    """The int8 form that the scan of Hearth uses."""
    scale = 127.0 * np.sqrt(floats.shape[1]) / 6.0
    return np.clip(np.round(floats * scale), -127, 127).astype(np.int8)


class Peers:
    """What is open."""

    def __init__(self):
        self.sessions, self.indexes = {}, {}
        self.tokenizer = self.folder = self.hnsw = None
        faiss.omp_set_num_threads(1)

    def versions(self):
        names = {"onnxruntime": onnxruntime, "onnx": onnx, "numpy": np, "faiss": faiss, "usearch": usearch}
        return {name: module.__version__ for name, module in names.items()}

    def open(self, folder, out):
        """Exports the model; the operators of its graphs."""
        folder, self.folder = pathlib.Path(folder), pathlib.Path(out)
        found = bert_graph.make(folder, out)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)
        return {"operators": found}

    def session(self, graph, threads):
        if (graph, threads) not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            path = str(self.folder / f"{graph}.onnx")
            self.sessions[graph, threads] = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        return self.sessions[graph, threads]

    def inputs(self, texts):
        """One batch, padded to its longest text."""
        all_ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=True)]
        longest = max(map(len, all_ids))
        ids = np.zeros((len(texts), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(all_ids):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}

    def encode(self, texts, rounds, graph):
        """One text at a time, from token numbers: without the tokenizer, which ours is measured with."""
        session = self.session(graph, 1)
        inputs = [self.inputs([text]) for text in texts]
        tokens = {text["input_ids"].shape[1] for text in inputs}
        taken = times(rounds, lambda at: session.run(None, inputs[at % len(inputs)]))
        return {"times": taken, "tokens": sorted(tokens)}

    def batch(self, texts, graph, threads, size):
        """Texts and tokens a second with the tokenizer, in batches of texts of like length."""
        session = self.session(graph, threads)
        start = time.perf_counter()
        texts = sorted(texts, key=len)
        count = 0
        for at in range(0, len(texts), size):
            inputs = self.inputs(texts[at : at + size])
            count += int(inputs["attention_mask"].sum())
            session.run(None, inputs)
        seconds = time.perf_counter() - start
        return {"texts": len(texts) / seconds, "tokens": count / seconds}

    def compare(self, texts, ours, reference, graphs):
        """Cosines to 32-bit floats, mean and least, of Hearth's vectors and of each graph's."""
        exact = vectors(reference)

        def cosine(found):
            along = (found * exact).sum(axis=1)
            lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
            cosines = along / lengths
            return {"mean": float(cosines.mean()), "least": float(cosines.min())}

        answer = {"hearth": cosine(vectors(ours))}
        for graph in graphs:
            session = self.session(graph, 1)
            found = [session.run(None, self.inputs([text]))[0][0] for text in texts]
            answer[graph] = cosine(np.array(found))
        return answer

    def scan(self, notes, questions, count, rounds, what):
        """Exact search of the ten nearest, one question at a time."""
        key = (what, count)
        if key not in self.indexes:
            # One at a time: the memory is needed.
            self.indexes = {key: self.index(what, vectors(notes, count))}
        index, queries = self.indexes[key], vectors(questions)
        rows = [queries[at % len(queries)][None] for at in range(64)]
        if what == "numpy":

            def work(at):
                scores = index @ rows[at % 64][0]
                best = np.argpartition(scores, -NEAREST)[-NEAREST:]
                return best[np.argsort(-scores[best])]

        elif what == "usearch":
            rows = [as_bytes(row)[0] for row in rows]

            def work(at):
                return usearch.index.search(
                    index, rows[at % 64], NEAREST, usearch.index.MetricKind.IP, exact=True, threads=1
                )

        else:

            def work(at):
                return index.search(rows[at % 64], NEAREST)

        return {"times": times(rounds, work)}

    def index(self, what, data):
        if what == "numpy":
            return np.ascontiguousarray(data)
        if what == "usearch":
            return as_bytes(data)
        if what == "faiss-flat":
            index = faiss.IndexFlatIP(WIDTH)
        else:
            kind = faiss.ScalarQuantizer.QT_8bit
            index = faiss.IndexScalarQuantizer(WIDTH, kind, faiss.METRIC_INNER_PRODUCT)
            index.train(data)
        index.add(data)
        return index

    def graph(self, notes, questions, size, recall, connectivity, expansion, broad):
        """usearch's HNSW over int8, which grows from call to call: the narrowest search that finds at least that part of
        the ten nearest, how long it and one of breadth `broad` took, and building. Searches go in one call, so that Python's own time is not
        in them."""
        asked = vectors(questions)
        queries = as_bytes(asked)
        if self.hnsw is None or self.hnsw["rows"] > size:
            index = usearch.index.Index(
                ndim=WIDTH, metric="ip", dtype="i8", connectivity=connectivity, expansion_add=expansion
            )
            self.hnsw = {"index": index, "rows": 0, "seconds": 0.0, "found": None}
        index, rows = self.hnsw["index"], self.hnsw["rows"]
        if rows < size:
            floats = vectors(notes, size)
            data = as_bytes(floats[rows:])
            start = time.perf_counter()
            index.add(np.arange(rows, size), data, threads=1)
            self.hnsw["seconds"] += time.perf_counter() - start
            self.hnsw["rows"] = size
            scores = asked @ floats.T
            exact = np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]
            for breadth in BREADTHS:
                index.expansion_search = breadth
                # As the exact scan does: candidates by int8, of which the ten best in full.
                keys = index.search(queries, 4 * NEAREST, threads=1).keys.astype(np.int64)
                order = np.argsort(-np.take_along_axis(scores, keys, axis=1), axis=1)[:, :NEAREST]
                best = np.take_along_axis(keys, order, axis=1)
                share = float(np.mean([len(set(a) & set(b)) / NEAREST for a, b in zip(best, exact)]))
                self.hnsw["found"] = {"rows": size, "breadth": breadth, "recall": share}
                if share >= recall:
                    break
        taken = {}
        for name, breadth in (("times", self.hnsw["found"]["breadth"]), ("times_broad", broad)):
            index.expansion_search = breadth
            taken[name] = []
            for _ in range(3):
                start = time.perf_counter()
                index.search(queries, 4 * NEAREST, threads=1)
                taken[name].append((time.perf_counter() - start) * 1e3 / len(queries))
        built = {"build_seconds": self.hnsw["seconds"], "bytes": index.memory_usage}
        return self.hnsw["found"] | built | taken


def main():
    # What libraries print goes elsewhere; answers alone go to the pipe.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    peers = Peers()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(peers, command.pop("do"))(**command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
