"""Evaluation: does a detail described anywhere in the text appear in the picture?"""
