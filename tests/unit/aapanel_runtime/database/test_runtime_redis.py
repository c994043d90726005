# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis URLs."""

from __future__ import annotations

import pytest
from aapanel_runtime.database.redis import RedisURLError, parse


@pytest.mark.parametrize(
    ("url", "display"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://:p@h:1/2", "redis://:***@h:1/2"),
        ("rediss://u:p@[::1]/", "rediss://u:***@[::1]:6379/0"),
        ("redis://h/0?db=3", "redis://h:6379/3"),
        ("unix:///run/redis.sock?db=1&password=p", "unix:///run/redis.sock?db=1"),
    ],
)
def test_redis_urls_are_parsed_as_by_redis_py(url, display):
    assert parse(url).display == display


@pytest.mark.parametrize(
    "url", ["h:6379", "http://h", "redis://h/hunter2", "redis://:hunter2/@h/0", "unix://", "redis://:a b@h"]
)
def test_an_invalid_redis_url_is_refused_without_quoting_it(url):
    with pytest.raises(RedisURLError) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
