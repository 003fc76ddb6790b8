"""--test and --test-onnx, whatever is tested: the kept weights in torch and as ONNX, case by case."""
from pipnet.errors import UserError


def run_tests(tests, ranks, with_onnx: bool) -> None:
    """Evaluate each case with each model, write the report and print its tables. tests: see tasks/base.py.

    with_onnx: export first if need be, and raise UserError if the figures of the export differ from those of torch. An ONNX file
    is tested as it is.
    """
    models = {"torch": tests.torch_model()} if tests.run.model == "torch" else {}
    if with_onnx or not models:
        ranks.agree(tests.export)
        models["onnx"] = tests.onnx_model()
    differences = [0.0]
    for case in tests.cases():
        results = {name: tests.evaluate(model, case) for name, model in models.items()}
        if len(results) > 1:
            differences += tests.differences(case, *results.values())
        if ranks.first:
            for name, result in results.items():
                tests.add(case, name, result)
    if not ranks.first:
        return
    print(tests.close())
    if not max(differences) <= tests.agreement:
        raise UserError(f"{tests.run.onnx} differs from torch by {max(differences):.4f} (allowed: {tests.agreement}); delete it "
                        "and export again")
