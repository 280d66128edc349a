# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that tell which nginx is meant, shared by the modules that look at it."""

from __future__ import annotations


class ModuleDocFragment:
    """Documents most of what module_utils/calls/nginx_info.py's SHARED adds to an argument spec."""

    DOCUMENTATION = r"""
options:
  config:
    description:
      - The file that has the upstream block, nginx's main file or one that its C(http) block includes. A symbolic link
        to it is followed and stays one.
    type: path
    required: true
  upstream:
    description: Name of the upstream block.
    type: str
    required: true
  probe:
    description:
      - The URL that a server has to answer with a status of 200 to 299, with C({server}) where its address belongs. The
        load balancer's host asks it, since nginx without a subscription does not.
      - Without one a server has to accept a connection.
    type: str
    default: ""
  executable:
    description: Nginx's program, which tests the configuration.
    type: path
    default: /usr/sbin/nginx
  main:
    description: Nginx's main configuration file.
    type: path
    default: /etc/nginx/nginx.conf
  pid_file:
    description: The file in which nginx notes its master process, as its C(pid) directive says.
    type: path
    default: /run/nginx.pid
"""
