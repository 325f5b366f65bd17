"""`shoal doctor`"""

from dataclasses import asdict

import click

from shoal.cli.output import print_json
from shoal.cli.session import format_option
from shoal.doctor.checks import Finding, Level, examine, fit
from shoal.doctor.probe import Machine

_SIGNS = {Level.OK: ("✔", "green"), Level.NOTE: ("!", "yellow"), Level.MISSING: ("✘", "red")}


def _show(finding: Finding) -> None:
    sign, colour = _SIGNS[finding.level]
    click.echo(f"  {click.style(sign, fg=colour)} {finding.subject:<18}{finding.detail}".rstrip())
    if finding.cost:
        click.echo(f"      costs: {finding.cost}")
    if finding.remedy:
        click.echo(f"      to do: {finding.remedy}")


@click.command()
@format_option
@click.option("-v", "--verbose", is_flag=True, help="Also what is as it should be.")
@click.pass_context
def doctor(context: click.Context, form: str, verbose: bool) -> None:
    """Say what this machine lacks to run Shoal, what that costs, and how to get it.

    Exits with 1 when something that Shoal requires is missing.
    """
    findings = examine(Machine())
    if form == "json":
        print_json({"Fit": fit(findings), "Findings": [asdict(finding) for finding in findings]})
    else:
        area = ""
        for finding in findings:
            if finding.level is Level.OK and not verbose:
                continue
            if finding.area != area:
                area = finding.area
                click.echo(click.style(area, bold=True))
            _show(finding)
        counts = {level: sum(finding.level is level for finding in findings) for level in Level}
        verdict = "This machine can run Shoal" if fit(findings) else "This machine can't run Shoal yet"
        passed, notes, missing = (counts[level] for level in Level)
        click.echo(f"{verdict}: {passed} checks passed, {notes} notes, {missing} missing.")
    context.exit(0 if fit(findings) else 1)
