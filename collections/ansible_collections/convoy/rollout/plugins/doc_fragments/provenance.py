# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of the actions that ask who has built a release."""

from __future__ import annotations


class ModuleDocFragment:
    """Documents the required_provenance of plugin_utils/depot.py's TRUST_SPEC."""

    DOCUMENTATION = r"""
options:
  required_provenance:
    description:
      - Who must have built a release, by the DSSE envelopes of in-toto statements with SLSA provenance that are kept
        with it. Without it nobody asks. Needs the Python package C(securesystemslib[crypto]) on the controller.
    type: dict
    suboptions:
      keys:
        description: Files of public keys in PEM. One of them must have signed the envelope.
        type: list
        elements: path
        required: true
      builders:
        description: The ids of the builders that are accepted.
        type: list
        elements: str
        required: true
      sources:
        description:
          - Patterns, one of which must fit each repository that was built from. C(*) stands for anything but a slash,
            C(**) for anything; scheme, host and the beginning of the path are without either.
        type: list
        elements: str
        required: true
"""
