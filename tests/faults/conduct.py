"""Faults in what a loss does besides its work: to memory, files, the process, its inputs, and to errors."""

from tests.faults import Fault, in_loss
from tests.faults.hidden import ASSIGNED, CALL, TOTAL

IN_TEMP = "(t := __import__('tempfile')).gettempdir() + '/yololoss-{0}'"
KEPT = "self.__dict__.setdefault('kept', {0})"
TERMS = "box, obj, cls = zip(*layers, strict=True)"
OVERLAP = "return overlap.split_with_sizes("
READ = "objectness, selected = gather(logits, rows.indices)"
HAS_NODE = "x.grad_fn is not None"
SETTING, INPUTS = "state.global-settings-unchanged", "state.nothing-left-in-inputs"
HIDDEN, OUT = "input.nan-logits", "run.no-effect-outside"


def _before(name: str, law: str, statement: str, kind: str = "wrong primitive") -> Fault:
    """A statement before the work of a call."""
    return in_loss(name, "STATE", kind, law, CALL, f"        {statement}\n{CALL}")


def _after(name: str, law: str, statement: str, kind: str = "wrong primitive") -> Fault:
    """A statement after the work of a call."""
    return in_loss(name, "STATE", kind, law, TOTAL, f"{TOTAL}\n        {statement}")


def _kept(name: str, empty: str, more: str) -> Fault:
    """Something is added to what the object keeps."""
    return _after(name, "state.keeps-nothing", f"{KEPT.format(empty)}{more}", "missing step")


def _hides(name: str, old: str, new: str, law: str = HIDDEN) -> Fault:
    """What would show that something is wrong is replaced."""
    return in_loss(name, "INPUT", "wrong primitive", law, old, new)


KEEPS = (
    _kept("log_of_totals", "[]", ".append(float(total))"),
    _kept("log_by_call", "{}", "[len(self.kept)] = float(total)"),
    _kept("log_of_items", "[]", ".append({'box': float(box), 'obj': float(obj)})"),
    _kept("copies_of_predictions", "[]", ".append([x.detach().clone() for x in p])"),
    _kept("set_of_totals", "set()", ".add((float(total), len(self.kept)))"),
    _after(
        "totals_in_one_tensor",
        "state.keeps-nothing",
        "self.kept = torch.cat((getattr(self, 'kept', total[None].detach()), total[None].detach()))",
        "missing step",
    ),
    _after(
        "text_that_grows", "state.keeps-nothing", "self.text = getattr(self, 'text', '') + 'total '", "missing step"
    ),
    _after(
        "array_that_grows",
        "state.keeps-nothing",
        "self.kept = (n := __import__('numpy')).append(getattr(self, 'kept', n.zeros(0)), float(total))",
        "missing step",
    ),
    _kept("array_of_totals", "__import__('array').array('d')", ".append(float(total))"),
    _kept("bytes_of_totals", "__import__('io').BytesIO()", ".write(b'total of a call')"),
    _kept("kept_by_its_targets", "{}", "[float(targets[:, 2:].sum())] = True"),
    _before("log_in_the_class", "state.keeps-nothing", "type(self).log = [*getattr(type(self), 'log', []), 1]"),
    _before("last_predictions_kept", "state.frees-memory", "self.last = p"),
    _before("last_targets_kept", "state.frees-memory", "self.last = targets"),
    _before("part_of_predictions_kept", "state.frees-memory", "self.last = [x.detach()[:1] for x in p]"),
    _after("last_total_kept", "state.frees-memory", "self.last = total", "missing step"),
)
OUTSIDE = (
    _after("line_in_a_file", OUT, f"open({IN_TEMP.format('loss.txt')}, 'a').write(f'{{float(total)}}\\n')"),
    _after("line_by_numpy", OUT, f"__import__('numpy').savetxt({IN_TEMP.format('loss.txt')}, [float(total)])"),
    _before("saved_by_torch", OUT, f"torch.save(targets, {IN_TEMP.format('targets.pt')})"),
    _before("folder_made", OUT, f"__import__('os').makedirs({IN_TEMP.format('runs')}, exist_ok=True)"),
    _before("file_removed", OUT, f"__import__('pathlib').Path({IN_TEMP.format('gone')}).unlink(missing_ok=True)"),
    _before("command_started", OUT, "__import__('subprocess').run('true', check=False)"),
    _before("shell_started", OUT, "__import__('os').system('true')"),
    _before("name_looked_up", OUT, "__import__('socket').getaddrinfo('127.0.0.1', 80)"),
)
PROCESS = (
    _before("environment_set", SETTING, "__import__('os').environ['LOSS_CALLED'] = '1'"),
    _before("default_dtype_put_to_float32", "state.keeps-caller-settings", "torch.set_default_dtype(torch.float32)"),
    _before("collection_put_on", "state.keeps-caller-settings", "__import__('gc').enable()"),
    _before("autocast_in_half", SETTING, "torch.set_autocast_dtype('cpu', torch.float16)"),
    _before("folder_changed", SETTING, "__import__('os').chdir('/')"),
    _before("warnings_filtered", SETTING, "__import__('warnings').simplefilter('ignore')"),
    _before("logging_disabled", SETTING, "__import__('logging').disable()"),
    _before("logging_configured", SETTING, "__import__('logging').basicConfig(level=10, force=True)"),
    _before("collection_disabled", SETTING, "__import__('gc').disable()"),
    _before("signal_ignored", SETTING, "(s := __import__('signal')).signal(s.SIGTERM, s.SIG_IGN)"),
    _before("children_ignored", SETTING, "(s := __import__('signal')).signal(s.SIGCHLD, s.SIG_IGN)"),
    _before("print_options_set", SETTING, "torch.set_printoptions(linewidth=320)"),
    _before("numpy_print_options_set", SETTING, "__import__('numpy').set_printoptions(linewidth=320)"),
    _before("sharing_of_tensors_by_files", SETTING, "torch.multiprocessing.set_sharing_strategy('file_system')"),
    _before("threads_of_autograd_switched_off", SETTING, "torch.autograd.set_multithreading_enabled(False)"),
    _before("print_replaced", SETTING, "__import__('builtins').print = lambda *values, **options: None"),
    _before("tracing_left_on", SETTING, "__import__('sys').settrace(lambda *event: None)"),
    _before("something_done_at_exit", SETTING, "__import__('atexit').register(id, self)"),
    _before("time_limit_of_sockets", SETTING, "__import__('socket').setdefaulttimeout(3)"),
    _before("warnings_not_shown", SETTING, "__import__('warnings').showwarning = lambda *warning: None"),
    _before("warnings_logged", SETTING, "__import__('logging').captureWarnings(True)"),
    _before("umask_set", SETTING, "__import__('os').umask(0)"),
    _before("tf32_switched_off", SETTING, "torch.backends.cudnn.allow_tf32 = False"),
    _before("recursion_limit_raised", SETTING, "__import__('sys').setrecursionlimit(12345)"),
    _before("path_lengthened", SETTING, "__import__('sys').path.append('utils')"),
    _before("always_warned", SETTING, "torch.set_warn_always(True)"),
    _before("cudnn_switched_off", SETTING, "torch.backends.cudnn.enabled = False"),
    in_loss(
        "gradients_left_off_by_an_error",
        "STATE, INPUT",
        "missing step",
        "input.settings-restored",
        ASSIGNED,
        f"torch.set_grad_enabled(False)\n        {ASSIGNED}\n        torch.set_grad_enabled(True)",
    ),
    in_loss(
        "default_dtype_left_by_an_error",
        "STATE, INPUT",
        "missing step",
        "input.settings-restored",
        ASSIGNED,
        f"torch.set_default_dtype(torch.float64)\n        {ASSIGNED}\n        torch.set_default_dtype(torch.float32)",
    ),
)
INPUT = (
    _before("nan_gradients_hooked", INPUTS, "[x.register_hook(torch.nan_to_num) for x in p if x.requires_grad]"),
    _before("nodes_hooked", INPUTS, f"[x.grad_fn.register_hook(lambda *grads: None) for x in p if {HAS_NODE}]"),
    _before(
        "nan_gradients_hooked_before_a_node",
        INPUTS,
        f"[x.grad_fn.register_prehook(lambda grads: tuple(g.nan_to_num() for g in grads)) for x in p if {HAS_NODE}]",
    ),
    _before(
        "several_gradients_hooked",
        INPUTS,
        "all(x.requires_grad for x in p) and torch.autograd.graph.register_multi_grad_hook(p, lambda grads: None)",
    ),
    _before("targets_get_gradients", INPUTS, "targets.requires_grad_(targets.is_floating_point())"),
    _before("targets_written_with_their_values", INPUTS, "targets.mul_(1)"),
    _before("predictions_marked", INPUTS, "p[0].seen = True"),
    _after(
        "own_backward",
        INPUTS,
        "total.requires_grad and total.backward(retain_graph=True)",
    ),
)
HIDES = (
    _hides("nan_logits_are_zero", READ, READ.replace("logits,", "logits.nan_to_num(),")),
    _hides("nan_overlap_is_zero", OVERLAP, OVERLAP.replace("overlap.", "overlap.nan_to_num().")),
    _hides("nan_total_is_zero", TOTAL, f"{TOTAL}\n        total = total.nan_to_num()"),
    _hides(
        "zero_for_a_nan_total",
        TOTAL,
        f"{TOTAL}\n        total = total if total.isfinite() else total.new_zeros((), requires_grad=True)",
    ),
    _hides(
        "nan_layers_left_out",
        TERMS,
        f"{TERMS}\n        box, obj, cls = ([t if t.isfinite() else t.new_zeros(()) for t in part] for part in (box, obj, cls))",
    ),
    _hides(
        "every_error_is_zero",
        CALL,
        f"        try:\n    {CALL}        except Exception:\n            box = obj = cls = 0 * sum(x.sum() for x in p)\n",
        "input.class-too-large",
    ),
    _hides(
        "last_terms_for_an_error",
        CALL,
        f"        try:\n    {CALL}            self.last = box.detach(), obj.detach(), cls.detach()\n"
        "        except Exception:\n            box, obj, cls = (each + 0 * sum(x.sum() for x in p) for each in self.last)\n",
        "input.class-too-large",
    ),
)
SPOILT = (
    in_loss(
        "bad_input_is_remembered",
        "STATE, INPUT",
        "missing step",
        "input.spoils-nothing",
        CALL,
        f"        self.sum = getattr(self, 'sum', 0.0) + float(targets.sum())\n{CALL}        box = box + 0 * self.sum\n",
    ),
    in_loss(
        "bad_input_is_remembered_in_the_balance",
        "STATE, INPUT",
        "missing step",
        "input.spoils-nothing",
        CALL,
        f"        if not targets.isfinite().all():\n            self.balance = [0.0] * self.nl\n{CALL}",
    ),
)
LATE = (
    _after(
        "more_from_the_fiftieth_call",
        "state.many-calls",
        "self.calls = getattr(self, 'calls', 0) + 1\n        total = total * (1 + (self.calls > 50))",
    ),
    _before(
        "prints_at_each_hundredth_call",
        "state.many-calls",
        "self.calls = getattr(self, 'calls', 0) + 1\n        self.calls % 100 or print(self.calls)",
    ),
    _before(
        "writes_at_each_hundredth_call",
        "state.many-calls",
        "self.calls = getattr(self, 'calls', 0) + 1\n"
        f"        self.calls % 100 or open({IN_TEMP.format('log.txt')}, 'a').close()",
    ),
    _before(
        "gr_grows_after_warm_up",
        "state.many-calls",
        "self.calls = getattr(self, 'calls', 0) + 1\n        self.gr = self.gr if self.calls < 100 else self.gr / 2",
    ),
    _before(
        "balance_follows_a_schedule",
        "state.many-calls",
        "self.calls = getattr(self, 'calls', 0) + 1\n"
        "        self.balance = [b * (1 if self.calls < 150 else 0.99) for b in self.balance]",
    ),
)
SAYS = (
    _before("warns_each_time", "run.no-warning", "__import__('warnings').warn('loss is computed', stacklevel=2)"),
    _before(
        "warns_with_a_number",
        "run.no-warning",
        "type(self).calls = getattr(type(self), 'calls', 0) + 1\n"
        "        __import__('warnings').warn(f'call {self.calls}', stacklevel=2)",
    ),
    _before("warns_of_users", "run.no-warning", "torch.tensor(targets)"),
    _before("logs_each_time", "run.no-output", "__import__('logging').getLogger('loss').warning('loss is computed')"),
    _before("prints_past_python", "run.no-output-by-descriptor", "__import__('os').write(2, b'loss\\n')"),
)
CALLER = (
    _before("hyp_written", "form.model-unchanged", "self.hyp['calls'] = self.hyp.get('calls', 0) + 1"),
    _before("lists_alone", "form.tuple-of-predictions", "p = p + []"),
    _after("lock_kept_after_a_call", "state.deep-copy", "self.lock = __import__('threading').Lock()"),
    _after("function_kept_after_a_call", "state.pickle", "self.last = lambda: 0"),
    _before("predictions_copied_as_a_list", "form.tuple-of-predictions", "p = p.copy()"),
    in_loss(
        "dtype_by_default",
        "STATE, DTYPE",
        "wrong primitive",
        "state.default-dtype",
        "grid = objectness.new_zeros(cells + 1)",
        "grid = torch.zeros(cells + 1, device=cell.device)",
    ),
    Fault(
        "second_derivative_is_zero",
        "AUTOGRAD",
        "wrong primitive",
        "gradients.second-derivative",
        "gather",
        "objectness, rows = grads",
        "objectness, rows = (grad.detach() for grad in grads)",
    ),
)
COST = (
    _before(
        "targets_compared_with_all",
        "run.cost-of-targets",
        "same = (targets[:, None] == targets[None]).all(dim=-1)",
    ),
    _before(
        "each_target_compared_with_all",
        "run.cost-of-targets",
        "same = [(targets == row).all(dim=1) for row in targets]",
    ),
    _before(
        "each_pair_of_targets_compared",
        "run.cost-of-targets",
        "same = [[torch.equal(one, two) for two in targets] for one in targets]",
    ),
    _before(
        "pairs_compared_by_python",
        "run.cost-of-targets",
        "same = sum(one == two for one in targets.tolist() for two in targets.tolist())",
    ),
    _before(
        "pairs_compared_by_numpy",
        "run.cost-of-targets",
        "same = (rows := targets.detach().float().cpu().numpy())[:, None] == rows",
    ),
)
CONDUCT = (*KEEPS, *OUTSIDE, *PROCESS, *INPUT, *HIDES, *SPOILT, *LATE, *SAYS, *CALLER, *COST)
