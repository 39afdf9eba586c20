"""Do shop and ERP agree in counts and money?"""
