# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Vaulted values are known, whether each is encrypted by itself or a file as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString, VaultLib, VaultSecret, VaultSecretsContext

from ansible_collections.convoy.rollout.plugins.plugin_utils.vaulted import vaulted

SECRETS = [("default", VaultSecret(b"password"))]


@pytest.fixture
def loader() -> DataLoader:
    """A loader that knows the password."""
    loader = DataLoader()
    loader.set_vault_secrets(SECRETS)
    return loader


@pytest.fixture(autouse=True)
def context() -> Iterator[None]:
    """What lets values be decrypted."""
    before = VaultSecretsContext._current
    VaultSecretsContext._current = None
    VaultSecretsContext.initialize(VaultSecretsContext(SECRETS))
    yield
    VaultSecretsContext._current = before


def encrypted(text: str) -> str:
    ciphertext: bytes = VaultLib(SECRETS).encrypt(text)
    return ciphertext.decode()


def test_values_encrypted_one_by_one(loader: DataLoader) -> None:
    one, deep, short = (EncryptedString(ciphertext=encrypted(text)) for text in ("hunter22", "swordfish", "abc"))
    variables = {"plain": "plain text", "password": one, "all": [{"deep": deep}], "short": short}
    assert vaulted(variables, loader) == ["hunter22", "swordfish"]


def test_files_encrypted_whole(loader: DataLoader, tmp_path: Path) -> None:
    folder = tmp_path / "group_vars" / "all"
    folder.mkdir(parents=True)
    (folder / "vault.yml").write_text(encrypted("password: hunter22\nports: [54321]\nnested: {key: swordfish}\n"))
    (folder / "plain.yml").write_text("password: not secret\n")
    for source in (tmp_path, tmp_path / "hosts"):
        assert vaulted({"ansible_inventory_sources": [str(source)]}, loader) == ["54321", "hunter22", "swordfish"]
    assert vaulted({"playbook_dir": str(tmp_path)}, loader) == ["54321", "hunter22", "swordfish"]
