#!/usr/bin/env python3
"""A second opinion on verdicts, written from what crates/kuboard-admission/src/verdict.rs promises
and from nothing else. Reads worlds as JSON lines, answers with what it would decide, a line each.
"""

import functools
import json
import re
import sys

OUTCOMES = ["allow", "audit", "warn", "deny"]
ALLOW, AUDIT, WARN, DENY = range(4)
SEVERITY_OF = {"LOW": 2, "MEDIUM": 3, "HIGH": 4, "CRITICAL": 5}
LARGEST = 2**63 - 1
SMALLEST = -(2**63)


def saturated(number):
    return max(SMALLEST, min(LARGEST, number))


@functools.lru_cache(maxsize=None)
def pattern(glob, in_parts):
    """A glob as a regular expression. With in_parts, * and ? stay within a part of a path, and **
    is any number of parts."""
    out, at = "", 0
    one, many = ("[^/]", "[^/]*") if in_parts else (".", ".*")
    while at < len(glob):
        if in_parts and glob[at:at + 3] == "**/" and (at == 0 or glob[at - 1] == "/"):
            out, at = out + "(?:.*/)?", at + 3
        elif in_parts and glob[at:] == "**" and (at == 0 or glob[at - 1] == "/"):
            out, at = out + (".*" if at == 0 else ".+"), at + 2
        elif glob[at] == "*":
            out, at = out + many, at + 1
        elif glob[at] == "?":
            out, at = out + one, at + 1
        else:
            out, at = out + re.escape(glob[at]), at + 1
    return re.compile(out, re.DOTALL | (0 if in_parts else re.IGNORECASE))


def matches(glob, text, in_parts=True):
    return pattern(glob, in_parts).fullmatch(text) is not None


def about(globs, registry, repository, tag):
    """Whether a list of image globs is about an image. A tag of None: any."""
    if not globs:
        return True
    name = f"{registry}/{repository}" if registry else repository
    for glob in globs:
        head, colon, tail = glob.rpartition(":")
        if colon and "/" not in tail:
            if matches(head, name) and (tag is None or matches(tail, tag)):
                return True
        elif matches(glob, name):
            return True
    return False


def selects(policy, labels):
    for key, value in policy["selector_labels"]:
        if labels.get(key) != value:
            return False
    for kind, key, values in policy["selector_requirements"]:
        holds = {
            "in": key in labels and labels[key] in values,
            "not-in": key not in labels or labels[key] not in values,
            "exists": key in labels,
            "absent": key not in labels,
        }[kind]
        if not holds:
            return False
    return True


def concerns_namespace(policy, world):
    if policy["suspended"] or policy["threshold"] is None:
        return False
    if policy["namespace"] is not None:
        return policy["namespace"] == world["namespace"]
    return world["labels"] is None or selects(policy, dict(world["labels"]))


def concerns_image(policy, name):
    if name is None:
        return True
    registry, repository, tag = name
    host = re.sub(r":[0-9]*$", "", registry)
    for glob in policy["exclude_registries"]:
        if matches(glob, registry) or matches(glob, host):
            return False
    return about(policy["images"], registry, repository, tag)


def forgives(exemption, name, finding):
    if name is None:
        return False
    registry, repository, tag = name
    if not about(exemption["images"], registry, repository, tag or ""):
        return False
    ids = [finding["id"], *finding["aliases"]]
    globs = exemption["vulnerabilities"]
    if globs and not any(matches(glob, one, False) for glob in globs for one in ids):
        return False
    packages = exemption["packages"]
    return not packages or any(matches(glob, finding["package"], False) for glob in packages)


def reaches(policy, finding):
    if finding["severity"] < SEVERITY_OF[policy["threshold"]]:
        return False
    if policy["ignore_unfixed"] and finding["fixed_in"] is None:
        return False
    if policy["only_exploited"] and not finding["exploited"]:
        return False
    return finding["epss"] is None or finding["epss"] >= policy["min_epss"]


def in_grace(policy, facts, finding, now):
    seen = finding["first_seen_ms"]
    return seen > facts["first_scanned_ms"] and now < saturated(seen + policy["grace_ms"])


def capped(policy, outcome):
    if outcome == ALLOW:
        return ALLOW
    return min(outcome, [AUDIT, WARN, DENY][policy["mode"]]) if policy["mode"] else AUDIT


def badness(finding):
    epss = -1 if finding["epss"] is None else finding["epss"]
    return (
        -finding["severity"],
        not finding["exploited"],
        finding["fixed_in"] is None,
        -epss,
        finding["id"],
        finding["package"],
        finding["version"],
        finding["fixed_in"] or "",
    )


def judged(world):
    now = world["now_ms"]
    labels = dict(world["labels"] or [])
    strict = labels.get("kuboard.cn/enforce") == "strict"
    runs = {number for namespace, number in world["running"] if namespace == world["namespace"]}
    live = [
        it for it in world["exemptions"]
        if it["namespace"] == world["namespace"] and now < it["expires_ms"]
    ]
    reasons, forgiven, grace = [], {}, 0
    for policy in world["policies"]:
        if not concerns_namespace(policy, world):
            continue
        home = policy["namespace"]
        full = policy["name"] if home is None else f"{home}/{policy['name']}"
        for image in world["images"]:
            if not concerns_image(policy, image["name"]):
                continue

            def add(outcome, detail):
                reasons.append((capped(policy, outcome), image["image"], full, detail))

            if image["state"] == "invalid":
                add(WARN if policy["on_error"] == 0 else DENY, ["invalid"])
                continue
            if image["state"] == "unresolved":
                add([ALLOW, DENY if strict else WARN, DENY][policy["on_error"]], ["unresolved"])
                continue
            running = policy["allow_running"] and image["digest"] in runs
            manifests = image["manifests"]
            if not manifests or any(it is None or it["known"] != "all" for it in manifests):
                asked = now if image["first_asked_ms"] is None else image["first_asked_ms"]
                end = saturated(asked + policy["max_wait_ms"])
                waits = policy["on_unscanned"] == 2 and (strict or now < end)
                outcome = [ALLOW, WARN, DENY if waits else WARN, DENY][policy["on_unscanned"]]
                if running:
                    outcome = min(outcome, WARN)
                shown = end if waits and not running and not strict else None
                add(outcome, ["unscanned", shown, running])
            most, most_fixable, worst = 0, 0, {}
            for facts in manifests:
                counted = fixable = 0
                for finding in facts["findings"] if facts else []:
                    if not reaches(policy, finding):
                        continue
                    if in_grace(policy, facts, finding, now):
                        grace += 1
                        continue
                    pardons = [it for it in live if forgives(it, image["name"], finding)]
                    for it in pardons:
                        key = f"{it['namespace']}/{it['name']}"
                        forgiven[key] = forgiven.get(key, 0) + 1
                    if pardons:
                        continue
                    counted += 1
                    fixable += finding["fixed_in"] is not None
                    worst[badness(finding)] = [
                        finding["id"], finding["package"], finding["version"]
                    ]
                most, most_fixable = max(most, counted), max(most_fixable, fixable)
            if most:
                shown = [worst[key] for key in sorted(worst)][:10]
                outcome = WARN if running else DENY
                add(outcome, ["findings", most, most_fixable, running, shown])
    lines = sorted(
        json.dumps([OUTCOMES[outcome], *rest], separators=(",", ":"))
        for outcome, *rest in reasons
    )
    return {
        "outcome": OUTCOMES[max((it[0] for it in reasons), default=ALLOW)],
        "reasons": lines,
        "forgiven": forgiven,
        "in_grace": grace,
    }


def main():
    out = sys.stdout
    for line in sys.stdin:
        out.write(json.dumps(judged(json.loads(line))))
        out.write("\n")
    out.flush()


if __name__ == "__main__":
    main()
